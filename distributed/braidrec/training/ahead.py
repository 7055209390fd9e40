"""The next batch made ready by a thread while this one is computed."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from braidrec.data.delivery import Rows
from braidrec.training.environment import use_threads
from braidrec.training.step import Position, Prepared, TrainStep
from braidrec.training.timing import PhaseTimer


def made_ready(
    step: TrainStep, batches: Iterable[tuple[Rows, Position]], timer: PhaseTimer
) -> Iterator[tuple[Rows, Position, Prepared]]:
    """Negatives and neighbourhoods of each batch, one batch ahead of who takes them.

    What is drawn is the same as without: it is a function of seed, epoch, step and rank, and of nothing that training
    changes. Rows of tables are not fetched ahead, for the update in between changes them. The time spent waiting for
    the thread is counted as "sampling".
    """
    # Both torch and DGL give each thread a number of threads of its own, on which DGL's draws depend.
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(1, "sampling", initializer=use_threads, initargs=(threads,)) as pool:
        coming = ((rows, at, pool.submit(step.prepare, rows, at)) for rows, at in batches)
        waiting = next(coming, None)
        while waiting is not None:
            rows, at, made = waiting
            waiting = next(coming, None)
            with timer.phase("sampling"):
                prepared = made.result()
            yield rows, at, prepared
