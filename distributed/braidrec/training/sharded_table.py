"""A table whose rows are dealt out over all ranks: fetched from and returned to their owners, only those of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from braidrec.training.context import Collectives
from braidrec.training.partition import RowPartition


@dataclass(frozen=True, kw_only=True)
class _Fetched:
    """What a fetch exchanged, for the way back.

    Attributes:
        asked: rows of this rank, by their place in its shard, that the ranks asked for, one rank after the other.
        asked_by: how many of them each rank asked for.
        owned_by: how many of `rows` each rank owns.
        rows: `[U, width]` the distinct rows that this rank got, in increasing order of nodes.
    """

    asked: Tensor
    asked_by: list[int]
    owned_by: list[int]
    rows: Tensor


class ShardedTable(nn.Module):
    """Every rank holds a range of rows and, by its optimizer, their state; a step moves the rows of the batch alone.

    `fetch` and `collect` are collectives: all ranks call them equally often. `fetch` sends the distinct nodes that are
    wanted to their owners and gets their rows; `collect` sends the gradients the same way back, and the owner adds them
    up, rank after rank, so that the sum does not depend on timing. A rank's parameter is its shard, so the update needs
    no further exchange. All ranks' updates of a step are in the rows that the next step fetches.

    Args:
        partition: who owns which rows.
        context: this rank among the others.
        initial: makes the initial values of a range of rows, `[len(range), width]`.
        sparse: hand sparse gradients to an optimizer that updates only the rows of the batch.
        wire: number format of rows and gradients between ranks, a rank's own are not rounded; None: as they are.
    """

    def __init__(
        self,
        partition: RowPartition,
        context: Collectives,
        *,
        initial: Callable[[range], Tensor],
        sparse: bool,
        wire: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.partition, self.context, self.sparse, self.wire = partition, context, sparse, wire
        self.held = partition.rows(context.rank)
        self.num_rows = partition.num_rows
        self.weight = nn.Parameter(initial(self.held))
        self.dealt_out = True
        self._fetched: list[_Fetched] = []

    def fetch(self, nodes: Tensor | None) -> Tensor:
        """Rows that take part in autograd, gathered from all ranks."""
        if nodes is None:
            nodes = torch.arange(self.num_rows, device=self.weight.device)
        if self.context.world_size == 1:
            return self._fetch_own(nodes)
        distinct, places = torch.unique(nodes, return_inverse=True)
        owned_by = self.partition.counts(distinct)
        asked, asked_by = self.context.exchange_rows(distinct, owned_by)
        asked = asked - self.held.start
        rows = self._outward(asked, asked_by, owned_by)
        if torch.is_grad_enabled():
            rows.requires_grad_()
            self._fetched.append(_Fetched(asked=asked, asked_by=asked_by, owned_by=owned_by, rows=rows))
        return rows.index_select(0, places)

    def collect(self, context: Collectives) -> None:
        """The summed gradient of this rank's rows. All ranks have to have fetched equally often."""
        if not self._fetched:
            return
        pieces = [piece for fetched in self._fetched for piece in self._homeward(fetched)]
        self._fetched.clear()
        # Also where none of this rank's rows was wanted: an optimizer counts its steps by gradients.
        wanted = [piece for piece in pieces if len(piece[0])]
        rows, gradients = (
            wanted[0] if len(wanted) == 1 and self.context.world_size > 1 else _summed(wanted or pieces[:1])
        )
        if self.sparse:
            self.weight.grad = torch.sparse_coo_tensor(
                rows.unsqueeze(0), gradients, self.weight.shape, is_coalesced=True, check_invariants=False
            )
        else:
            self.weight.grad = torch.zeros_like(self.weight).index_add_(0, rows, gradients)

    def all_rows(self) -> Tensor:
        """`[num_rows, width]` on every rank, for as long as the caller keeps them: a collective."""
        shard = self.weight.detach()
        if self.context.world_size == 1:
            return shard
        whole = shard.new_empty(self.num_rows, shard.shape[1])
        whole[self.held.start : self.held.stop] = shard
        for rank in range(self.context.world_size):
            rows = self.partition.rows(rank)
            self.context.broadcast(whole[rows.start : rows.stop], rank)
        return whole

    def _fetch_own(self, nodes: Tensor) -> Tensor:
        """Of a single process: nothing to exchange, and so nothing to put in order first."""
        rows = self.weight.detach().index_select(0, nodes)
        if torch.is_grad_enabled():
            rows.requires_grad_()
            self._fetched.append(_Fetched(asked=nodes, asked_by=[len(nodes)], owned_by=[len(nodes)], rows=rows))
        return rows

    def _outward(self, asked: Tensor, asked_by: list[int], owned_by: list[int]) -> Tensor:
        """Send each rank the rows that it asked for; this rank's, in the order in which it asked."""
        rank, weight = self.context.rank, self.weight.detach()
        before, own, after = _around(asked_by, rank)
        for_others = weight.index_select(0, torch.cat([asked[before], asked[after]]))
        arrived, _ = self.context.exchange_rows(
            self._as_sent(for_others), _without(asked_by, rank), _without(owned_by, rank)
        )
        return self._with_own(arrived, weight.index_select(0, asked[own]), owned_by)

    def _homeward(self, fetched: _Fetched) -> list[tuple[Tensor, Tensor]]:
        """Send each gradient to the row's owner; by rank, which of this rank's rows got which gradients."""
        rank = self.context.rank
        gradient = torch.zeros_like(fetched.rows) if fetched.rows.grad is None else fetched.rows.grad
        before, own, after = _around(fetched.owned_by, rank)
        for_others = torch.cat([gradient[before], gradient[after]])
        arrived, _ = self.context.exchange_rows(
            self._as_sent(for_others), _without(fetched.owned_by, rank), _without(fetched.asked_by, rank)
        )
        gradients = self._with_own(arrived, gradient[own], fetched.asked_by)
        places = torch.split(fetched.asked, fetched.asked_by)
        return list(zip(places, torch.split(gradients, fetched.asked_by), strict=True))

    def _as_sent(self, values: Tensor) -> Tensor:
        return values if self.wire is None else values.to(self.wire)

    def _with_own(self, arrived: Tensor, own: Tensor, counts: Sequence[int]) -> Tensor:
        """What came from the ranks before this one, this rank's own, and what came from those after it."""
        first = sum(counts[: self.context.rank])
        arrived = arrived.to(own.dtype)
        return torch.cat([arrived[:first], own, arrived[first:]]) if len(arrived) else own


def _around(counts: Sequence[int], rank: int) -> tuple[slice, slice, slice]:
    """Where the pieces before the rank's, its own, and those after it are."""
    start = sum(counts[:rank])
    stop = start + counts[rank]
    return slice(0, start), slice(start, stop), slice(stop, None)


def _without(counts: Sequence[int], rank: int) -> list[int]:
    return [0 if other == rank else count for other, count in enumerate(counts)]


def _summed(pieces: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Rows in increasing order, each once, and their gradients, added piece by piece."""
    rows, places = torch.unique(torch.cat([rows for rows, _ in pieces]), return_inverse=True)
    total = pieces[0][1].new_zeros(len(rows), pieces[0][1].shape[1])
    for part, (_, gradients) in zip(torch.split(places, [len(rows) for rows, _ in pieces]), pieces, strict=True):
        total.index_add_(0, part, gradients)
    return rows, total
