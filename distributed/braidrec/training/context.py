"""What a worker knows of the others: rank, device, collectives. One for a single process, one for a process group."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from braidrec.data.delivery import Rows
from braidrec.training.events import Event


class Collectives(Protocol):
    """A process among others that compute together."""

    rank: int
    local_rank: int
    world_size: int
    device: torch.device
    uses_ray: bool
    """Whether this process is connected to Ray, so that Ray Data can read for it."""

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum over all ranks, in place; returns `values`."""
        ...

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        """The ranks' `[n_r, …]` tensors one below the other, in rank order; n may differ between ranks."""
        ...

    def exchange_rows(
        self, rows: Tensor, sent: Sequence[int], arriving: Sequence[int] | None = None
    ) -> tuple[Tensor, list[int]]:
        """Each rank gets rows from each (all-to-all).

        Args:
            rows: `[Σ sent, …]` what this rank sends, in the order of the ranks that get it.
            sent: how many rows go to each rank.
            arriving: how many come from each rank, where that is known; None: the ranks tell each other first.
        Returns:
            `[Σ arriving, …]` in the order of the ranks that sent it, and `arriving`.
        """
        ...

    def broadcast(self, values: Tensor, source: int) -> Tensor:
        """What rank `source` holds, in place on every rank; returns `values`, which must be contiguous."""
        ...

    def barrier(self) -> None:
        """Wait until every rank is here."""
        ...


class WorkerContext(Collectives, Protocol):
    """The loop is written once against this; Ray, a bare process group and a single process each provide one."""

    def train_chunks(self) -> Iterable[Rows] | None:
        """Read this rank's shard of the train split once more, or None where the loop slices the data set itself."""
        ...

    def emit(self, event: Event) -> None:
        """Tell the driver's listeners. Only rank 0 does."""
        ...

    def taking_steps(self) -> AbstractContextManager[None]:
        """Around steps, after each of which the loop can save where it is: who ends this process waits for that."""
        ...

    def noticed(self) -> bool:
        """Whether this process was told that it may soon be gone. Asked in every step, it has to cost nothing."""
        ...

    def heed(self) -> None:
        """After a step in which some rank was noticed, and when all have saved where they are, if that can be saved.
        Where this process was to end, it does."""
        ...


class Unnoticed:
    """Of a process that nobody warns."""

    def taking_steps(self) -> AbstractContextManager[None]:
        return nullcontext()

    def noticed(self) -> bool:
        return False

    def heed(self) -> None:
        return None


class SingleProcess(Unnoticed):
    """One worker, no collectives."""

    rank = 0
    local_rank = 0
    world_size = 1
    uses_ray = False

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or torch.device("cpu")

    def all_reduce(self, values: Tensor) -> Tensor:
        return values

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        return rows

    def exchange_rows(
        self, rows: Tensor, sent: Sequence[int], arriving: Sequence[int] | None = None
    ) -> tuple[Tensor, list[int]]:
        return rows, list(sent)

    def broadcast(self, values: Tensor, source: int) -> Tensor:
        return values

    def barrier(self) -> None:
        return None


class ProcessGroup(Unnoticed):
    """A worker of an initialised `torch.distributed` group (gloo or nccl)."""

    uses_ray = False

    def __init__(self, *, device: torch.device, local_rank: int) -> None:
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()
        self.local_rank = local_rank
        self.device = device

    def all_reduce(self, values: Tensor) -> Tensor:
        dist.all_reduce(values)
        return values

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        count = torch.tensor([len(rows)], device=rows.device)
        counts = [torch.empty_like(count) for _ in range(self.world_size)]
        dist.all_gather(counts, count)
        sizes = [int(size) for size in torch.cat(counts)]
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        gathered = [torch.empty_like(padded) for _ in range(self.world_size)]
        dist.all_gather(gathered, padded)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    def exchange_rows(
        self, rows: Tensor, sent: Sequence[int], arriving: Sequence[int] | None = None
    ) -> tuple[Tensor, list[int]]:
        if arriving is None:
            told = torch.tensor(sent, dtype=torch.int64, device=rows.device)
            counts = torch.empty_like(told)
            dist.all_to_all_single(counts, told)
            arriving = counts.tolist()
        arrived = rows.new_empty(sum(arriving), *rows.shape[1:])
        dist.all_to_all_single(arrived, rows.contiguous(), list(arriving), list(sent))
        return arrived, list(arriving)

    def broadcast(self, values: Tensor, source: int) -> Tensor:
        dist.broadcast(values, src=source)
        return values

    def barrier(self) -> None:
        dist.barrier()
