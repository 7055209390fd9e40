"""Processes in one gloo group that stay while tests send them functions to run."""

import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from braidrec.data.delivery import Rows
from braidrec.training.context import ProcessGroup
from braidrec.training.environment import use_threads
from braidrec.training.events import Event

SECONDS = 240


class GroupWorker(ProcessGroup):
    """A worker of the group, which keeps what it emits."""

    def __init__(self) -> None:
        super().__init__(device=torch.device("cpu"), local_rank=dist.get_rank())
        self.events: list[Event] = []

    def train_chunks(self) -> Iterable[Rows] | None:
        return None

    def emit(self, event: Event) -> None:
        self.events.append(event)


class Pair:
    """Sends one function to both processes and collects what the two return. A group of more is the same."""

    size = 2

    def __init__(self, folder: Path) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        self._lost = False
        for rank in range(self.size):
            ours, theirs = spawn.Pipe()
            arguments = (rank, self.size, str(folder / "rendezvous"), theirs)
            process = spawn.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            self._connections.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        """`function(worker, …)` on all ranks, each argument being those of the ranks: rank 0's, rank 1's, ….

        Returns:
            What the ranks returned; an exception that was raised there stands for its rank's result.
        """
        assert not self._lost, "a rank did not answer an earlier test: what it says now would be taken for this one's"
        self._lost = True
        for rank, connection in enumerate(self._connections):
            connection.send((function, [argument[rank] for argument in arguments]))
        results = []
        for connection in self._connections:
            assert connection.poll(SECONDS), "a rank did not answer: it waits for the other, or died"
            results.append(connection.recv())
        self._lost = False
        return results

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()


class Trio(Pair):
    """Three processes."""

    size = 3


def both(value: Any) -> tuple[Any, Any]:
    """The same argument for both ranks."""
    return value, value


def _serve(rank: int, size: int, rendezvous: str, connection: Connection) -> None:
    use_threads(1)
    limit = timedelta(seconds=SECONDS // 2)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size, timeout=limit)
    while True:
        function, arguments = connection.recv()
        try:
            result = function(GroupWorker(), *arguments)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            result = error
        connection.send(result)
