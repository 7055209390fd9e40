"""One process of a node makes what all of its processes use, however long it takes."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from braidrec.training.context import Collectives

T = TypeVar("T")
Tell = Callable[[str], None]
"""Hears what a person should know of long work."""
SECONDS_BETWEEN_LOOKS = 0.5


def untold(sentence: str) -> None:
    """Nobody listens."""


def built_beside(make: Callable[[], T], context: Collectives) -> T:
    """`make` on local rank 0 of every node, on a thread; then on all others, to map what lies there.

    As `mapped.once_per_node`, but nobody waits in one collective, which has a time limit: until all have it, all ask
    each other every half second whether they are done. To map may take long too, where what lies there is told by what
    it was made of. If one fails, the others fail in the same way when it is their turn.
    """
    if context.world_size == 1:
        return make()
    made: Future[T] | None = None
    with ThreadPoolExecutor(1, "building") as pool:
        for first in (True, False):
            if first == (context.local_rank == 0):
                made = pool.submit(make)
            while _anyone_works(made, context):
                time.sleep(SECONDS_BETWEEN_LOOKS)
    assert made is not None, "everybody had a turn"
    return made.result()


def _anyone_works(made: "Future[T] | None", context: Collectives) -> bool:
    busy = float(made is not None and not made.done())
    return float(context.all_reduce(torch.tensor([busy], device=context.device))) > 0
