"""Embedding tables: rows by node, fetched for a step, their gradients returned to wherever the rows live."""

from typing import Protocol

import torch
from torch import Tensor, nn

from braidrec.models.contract import TableSpec
from braidrec.training.context import Collectives


class Table(Protocol):
    """Rows by global node id. A fetched tensor requires a gradient; `collect` turns what arrived into `.grad`s.

    Attributes:
        num_rows: of the whole table.
        held: the rows that this rank holds, which are those of
        weight: `[len(held), width]`, its parameter.
        dealt_out: whether each rank holds other rows.
    """

    num_rows: int
    held: range
    weight: nn.Parameter
    dealt_out: bool

    def fetch(self, nodes: Tensor | None) -> Tensor:
        """`[len(nodes), width]` rows (None: all, in order) that take part in autograd."""
        ...

    def collect(self, context: Collectives) -> None:
        """Sum the gradients of all rows fetched since the last step over all ranks, ready for the optimizer."""
        ...

    def all_rows(self) -> Tensor:
        """`[num_rows, width]` without gradient, for exact evaluation. All ranks call it."""
        ...


class ReplicatedTable(nn.Module):
    """Every rank holds all rows; gradients are summed over the ranks, dense or as rows, whichever moves fewer bytes.

    Args:
        spec: width and initial distribution.
        num_rows: nodes.
        seed: of the initial values; equal on all ranks.
        start: `[num_rows, width]` initial values instead of random ones; None: those of the seed.
        sparse: hand sparse gradients to an optimizer that updates only the rows of the batch.
    """

    def __init__(self, spec: TableSpec, num_rows: int, *, seed: int, sparse: bool, start: Tensor | None = None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(spec.initialise(num_rows, generator) if start is None else start.clone())
        self.num_rows, self.held, self.dealt_out = num_rows, range(num_rows), False
        self.sparse = sparse
        self._fetched: list[tuple[Tensor, Tensor]] = []

    def fetch(self, nodes: Tensor | None) -> Tensor:
        if nodes is None:
            return self.weight
        rows = self.weight.detach().index_select(0, nodes).requires_grad_()  # indexing costs several times more
        if torch.is_grad_enabled():
            self._fetched.append((nodes, rows))
        return rows

    def collect(self, context: Collectives) -> None:
        arrived = [(nodes, rows.grad) for nodes, rows in self._fetched if rows.grad is not None]
        self._fetched.clear()
        if self.weight.grad is not None or not arrived:
            self._reduce_densely(arrived, context)
            return
        nodes, gradients = arrived[0]
        if len(arrived) > 1:  # one alone is not copied
            nodes = torch.cat([nodes for nodes, _ in arrived])
            gradients = torch.cat([gradient for _, gradient in arrived])
        if self.sparse:
            # Of several ranks some rows are nearly always the same.
            distinct = context.world_size == 1 and self._are_distinct(nodes)
            self._set_sparse(context.all_gather_rows(nodes), context.all_gather_rows(gradients), distinct)
        elif self._rows_are_cheaper(len(nodes), context):
            self._add_densely([(context.all_gather_rows(nodes), context.all_gather_rows(gradients))])
        else:
            self._reduce_densely([(nodes, gradients)], context)

    def all_rows(self) -> Tensor:
        return self.weight.detach()

    def _reduce_densely(self, arrived: list[tuple[Tensor, Tensor]], context: Collectives) -> None:
        self._add_densely(arrived)
        if self.weight.grad is not None:
            context.all_reduce(self.weight.grad)

    def _add_densely(self, arrived: list[tuple[Tensor, Tensor]]) -> None:
        for nodes, gradient in arrived:
            if self.weight.grad is None:
                self.weight.grad = torch.zeros_like(self.weight)
            self.weight.grad.index_add_(0, nodes, gradient)

    def _set_sparse(self, nodes: Tensor, gradients: Tensor, distinct: bool) -> None:
        # To put rows in order and add up those that are the same takes as long as all else; most batches have none.
        gradient = torch.sparse_coo_tensor(
            nodes.unsqueeze(0), gradients, self.weight.shape, is_coalesced=distinct, check_invariants=False
        )
        self.weight.grad = gradient if distinct else gradient.coalesce()

    def _are_distinct(self, nodes: Tensor) -> bool:
        seen = torch.zeros(self.num_rows, dtype=torch.bool, device=nodes.device)
        seen[nodes] = True
        return int(seen.sum()) == len(nodes)

    def _rows_are_cheaper(self, num_rows: int, context: Collectives) -> bool:
        """Bytes that reach a rank: everybody's rows and ids, against twice the table for a ring all-reduce."""
        if context.world_size == 1:
            return True
        rows, width = self.weight.shape
        total = context.all_reduce(torch.tensor([num_rows], dtype=torch.float64, device=self.weight.device))
        return float(total) * (4 * width + 8) < 2 * rows * width * 4
