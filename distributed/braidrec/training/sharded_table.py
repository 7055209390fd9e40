"""A table whose rows are dealt out over all ranks: fetched from and returned to their owners, only those of a batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from braidrec.training.context import Collectives
from braidrec.training.node_rows import NodeRows
from braidrec.training.partition import RowPartition
from braidrec.training.row_optimizers import add_rows


@dataclass(frozen=True, kw_only=True)
class _Fetched:
    """What a fetch exchanged, for the way back.

    Attributes:
        rows: `[n, width]` the rows that this rank got, in the order in which it named their nodes.
        places: `[n]` where each is among the distinct ones, which ascend.
        asked: rows of this rank, by their place in its shard, that the ranks asked for, one rank after the other.
        asked_by: how many of them each rank asked for.
        owned_by: how many of the distinct rows each rank owns.
    """

    rows: Tensor
    places: Tensor
    asked: Tensor
    asked_by: list[int]
    owned_by: list[int]


class ShardedTable(nn.Module):
    """Every rank holds a range of rows and, by its optimizer, their state; a step moves the rows of the batch alone.

    `fetch` and `collect` are collectives: all ranks call them equally often. `fetch` sends the distinct nodes that are
    wanted to their owners and gets their rows; `collect` sends the gradients the same way back, and the owner adds them
    up, rank after rank, so that the sum does not depend on timing. A rank's parameter is its shard, so the update needs
    no further exchange. All ranks' updates of a step are in the rows that the next step fetches.

    Ranks on one machine send nothing: the rows are in memory that all of them map (see `NodeRows`).

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
        self.dealt_out = True
        weight = initial(self.held)
        # A wire that rounds was asked for, and is used.
        self._node = None if wire else NodeRows.made(partition, weight.shape[1], weight.dtype, context)
        if self._node is not None:
            self._node.whole[self.held.start : self.held.stop] = weight
            weight = self._node.whole[self.held.start : self.held.stop]
        self.weight = nn.Parameter(weight)
        self._changed = True
        """Other ranks' rows in shared memory may be about to change, or be not yet there."""
        self._fetched: list[_Fetched] = []
        self._fetched_in_place: list[tuple[Tensor, Tensor]] = []

    @property
    def shares_memory(self) -> bool:
        """Whether the ranks read rows where they are, instead of sending them."""
        return self._node is not None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ShardedTable":
        """Of another format or device the rows are no longer those in shared memory."""
        before = self.weight.dtype, self.weight.device
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if (self.weight.dtype, self.weight.device) != before:
            self._node = None
        return self

    def fetch(self, nodes: Tensor | None) -> Tensor:
        """Rows that take part in autograd, gathered from all ranks."""
        if nodes is None:
            nodes = torch.arange(self.num_rows, device=self.weight.device)
        if self.context.world_size == 1:
            return self._fetch_in_place(self.weight.detach(), nodes)
        if self._node is not None:
            return self._fetch_in_place(self._settled(self._node), nodes)
        distinct, places = torch.unique(nodes, return_inverse=True)
        owned_by = self.partition.counts(distinct)
        asked, asked_by = self.context.exchange_rows(distinct, owned_by)
        asked = asked - self.held.start
        rows = self._outward(asked, asked_by, owned_by).index_select(0, places)
        if torch.is_grad_enabled():
            rows.requires_grad_()
            self._fetched.append(_Fetched(rows=rows, places=places, asked=asked, asked_by=asked_by, owned_by=owned_by))
        return rows

    def collect(self, context: Collectives) -> None:
        """The summed gradient of this rank's rows. All ranks have to have fetched equally often."""
        if not self._fetched and not self._fetched_in_place:
            return
        if self._fetched_in_place:
            pieces = self._collected_in_place()
        else:
            pieces = [piece for fetched in self._fetched for piece in self._homeward(fetched)]
            self._fetched.clear()
        # Also where none of this rank's rows was wanted: an optimizer counts its steps by gradients.
        rows, gradients = _summed([piece for piece in pieces if len(piece[0])] or pieces[:1])
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
        if self._node is not None:
            return self._settled(self._node)
        whole = shard.new_empty(self.num_rows, shard.shape[1])
        whole[self.held.start : self.held.stop] = shard
        for rank in range(self.context.world_size):
            rows = self.partition.rows(rank)
            self.context.broadcast(whole[rows.start : rows.stop], rank)
        return whole

    def _settled(self, node: NodeRows) -> Tensor:
        """All rows, with what all ranks have changed in them."""
        if self._changed:
            self.context.barrier()
            self._changed = False
        return node.whole

    def _fetch_in_place(self, rows: Tensor, nodes: Tensor) -> Tensor:
        """Of rows that this process can read: nothing to exchange, and so nothing to put in order first."""
        found = rows.index_select(0, nodes)
        if torch.is_grad_enabled():
            found.requires_grad_()
            self._fetched_in_place.append((nodes, found))
        return found

    def _collected_in_place(self) -> list[tuple[Tensor, Tensor]]:
        """The gradients of this rank's rows, rank by rank, and by fetches in a single process."""
        pieces = [
            (nodes, torch.zeros_like(rows) if rows.grad is None else rows.grad)
            for nodes, rows in self._fetched_in_place
        ]
        self._fetched_in_place.clear()
        if self._node is None:
            return pieces
        self._changed = True
        nodes, gradients = pieces[0]
        if len(pieces) > 1:
            nodes, gradients = (torch.cat(parts) for parts in zip(*pieces, strict=True))
        if len(nodes) > self.num_rows:
            nodes, gradients = _summed([(nodes, gradients)])
        return self._node.exchanged(nodes, gradients, self.context)

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
        gradient = _by_place(fetched.rows, fetched.places, sum(fetched.owned_by))
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


def _by_place(rows: Tensor, places: Tensor, num_distinct: int) -> Tensor:
    """The gradient of the distinct rows that `rows` was made of."""
    if rows.grad is None:
        return rows.new_zeros(num_distinct, rows.shape[1])
    if num_distinct == len(rows):  # as a block names its input nodes
        return rows.grad.index_select(0, _inverse(places))
    total = rows.new_zeros(num_distinct, rows.shape[1])
    add_rows(total, places, rows.grad)
    return total


def _around(counts: Sequence[int], rank: int) -> tuple[slice, slice, slice]:
    """Where the pieces before the rank's, its own, and those after it are."""
    start = sum(counts[:rank])
    stop = start + counts[rank]
    return slice(0, start), slice(start, stop), slice(stop, None)


def _without(counts: Sequence[int], rank: int) -> list[int]:
    return [0 if other == rank else count for other, count in enumerate(counts)]


def _summed(pieces: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Rows in increasing order, each once, and their gradients, added piece by piece."""
    named = torch.cat([rows for rows, _ in pieces])
    rows, places = torch.unique(named, return_inverse=True)
    if len(rows) == len(named):  # each once: putting in order is cheaper than adding
        gradients = pieces[0][1] if len(pieces) == 1 else torch.cat([gradients for _, gradients in pieces])
        return rows, gradients.index_select(0, _inverse(places))
    first, *others = torch.split(places, [len(rows) for rows, _ in pieces])
    total = _placed(pieces[0][1], first, len(rows))
    for part, (_, gradients) in zip(others, pieces[1:], strict=True):
        add_rows(total, part, gradients)
    return rows, total


def _placed(values: Tensor, places: Tensor, num_rows: int) -> Tensor:
    """`[num_rows, width]` the sums of the values that have the same place, and zero elsewhere."""
    covered = torch.zeros(num_rows, dtype=torch.bool, device=places.device)
    covered[places] = True
    free = (~covered).nonzero().squeeze(1)
    if num_rows - len(free) < len(places):
        total = values.new_zeros(num_rows, values.shape[1])
        add_rows(total, places, values)
        return total
    # Each has a place of its own: reading them in order is several times cheaper than adding them to zeros.
    source = torch.zeros(num_rows, dtype=places.dtype, device=places.device)
    source.scatter_(0, places, torch.arange(len(places), device=places.device))
    return values.index_select(0, source).index_fill_(0, free, 0)


def _inverse(places: Tensor) -> Tensor:
    """Of a permutation."""
    return torch.empty_like(places).scatter_(0, places, torch.arange(len(places), device=places.device))
