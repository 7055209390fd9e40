"""What a worker knows of the others: rank, device, collectives. One for a single process, one for a process group."""

from collections.abc import Iterable
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


class SingleProcess:
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

    def barrier(self) -> None:
        return None


class ProcessGroup:
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

    def barrier(self) -> None:
        dist.barrier()
