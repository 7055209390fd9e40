"""Rows of all ranks, for losses that compare the rows of a batch with each other."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Gather = Callable[[Tensor], Tensor]
"""`[N, …]` rows of all ranks, in rank order, from this rank's `[n, …]`. Gradients find their way back."""


class RowCollectives(Protocol):
    """What a gather needs of the process group."""

    rank: int
    world_size: int

    def all_reduce(self, values: Tensor) -> Tensor:
        """Sum over all ranks, in place; returns `values`."""
        ...

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        """The ranks' `[n_r, …]` tensors one below the other, in rank order; n may differ between ranks."""
        ...


def own_rows(rows: Tensor) -> Tensor:
    """The gather of a single process: its rows are all there are."""
    return rows


class RankGather:
    """Gathers over the ranks of a process group.

    A rank's loss depends on the rows of others, so their gradients travel back: each rank gets, for its own rows, the
    sum of all ranks' gradients. What is minimised is therefore the *sum* of the ranks' losses, and gradients of
    parameters have to be summed over ranks, not averaged.

    Both directions are collectives. All ranks have to gather the same tensors in the same order and all have to run
    backward, also those without rows.
    """

    def __init__(self, among: RowCollectives) -> None:
        self._among = among

    def __call__(self, rows: Tensor) -> Tensor:
        gathered: Tensor = _GatherRows.apply(rows, self._among)
        return gathered


def gather_among(among: RowCollectives) -> Gather:
    """What gathers over these processes: nothing has to be done for one alone."""
    return RankGather(among) if among.world_size > 1 else own_rows


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, among: RowCollectives) -> Tensor:
        ctx.among, ctx.size = among, len(rows)
        if ctx.needs_input_grad[0]:
            owner = among.all_gather_rows(torch.full((len(rows),), among.rank, device=rows.device))
            ctx.start = int((owner < among.rank).sum())
        return among.all_gather_rows(rows)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = ctx.among.all_reduce(gradient.clone(memory_format=torch.contiguous_format))
        return total[ctx.start : ctx.start + ctx.size], None
