"""Which rank owns which rows of a table that is dealt out over all ranks."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowPartition:
    """Contiguous ranges of rows, one a rank, in the order of the ranks.

    Ranges, not a hash, because rows in increasing order then are in the order of their owners too: a request is the
    sorted list of what is wanted, cut in as many pieces; what comes back needs no sorting; a row's place at its owner
    is a subtraction; and a checkpoint holds slices that any other number of ranks can read. What a hash would give for
    nothing, an even load, `balanced` gives by where it cuts.

    Attributes:
        starts: the first row of each rank, ascending from 0.
        num_rows: of the whole table.
    """

    starts: tuple[int, ...]
    num_rows: int

    @classmethod
    def balanced(cls, degree: Tensor, num_ranks: int) -> "RowPartition":
        """Cut where a row costs `½ (1/N + degree / Σ degree)` of the whole: half for its memory, half for its traffic.

        A row is fetched about as often as it has edges. Cut by degree alone, a table whose hot rows lie together would
        give one rank nearly all of the memory; so no rank gets more than twice its even share of the rows, nor, but
        for the last row of its range, of the edges.

        Args:
            degree: `[num_rows]` edges of each row.
        """
        rows = len(degree)
        even = torch.arange(1, rows + 1, dtype=torch.float64) / max(1, rows)
        edges = degree.to("cpu", torch.float64).cumsum(0)
        total = float(edges[-1]) if rows else 0.0
        cost = (even + edges / total) / 2 if total > 0 else even
        wanted = torch.arange(1, num_ranks, dtype=torch.float64) / num_ranks
        cuts = torch.searchsorted(cost, wanted, right=True)
        return cls(starts=(0, *cuts.tolist()), num_rows=rows)

    def rows(self, rank: int) -> range:
        """The rows of a rank."""
        return range(self.starts[rank], self._stops[rank])

    def counts(self, nodes: Tensor) -> list[int]:
        """How many of the nodes, which ascend, each rank owns."""
        cuts = torch.searchsorted(nodes, torch.tensor(self._stops, dtype=nodes.dtype, device=nodes.device)).tolist()
        return [stop - start for start, stop in zip((0, *cuts), cuts, strict=False)]

    @cached_property
    def _stops(self) -> tuple[int, ...]:
        return (*self.starts[1:], self.num_rows)
