"""Strands that are propagated once, before training: `Â^l (X W) = (Â^l X) W`.

A modality's strand whose rows are a linear function of its frozen features stays one through linear propagation. So the
features go through the graph once, and a step multiplies the rows of its seeds by the projector's weights, without any
graph. A bias is spread unevenly by the graph, and so is the vector that stands for absent rows: their indicators are
propagated as two more columns. Of an item with features x that counts as having them (p = 1) or not (p = 0):

    h = p (x W + b) + (1 − p) t = [p x, p, 1 − p] · [W; b; t]
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from braidrec.models.missing import MissingPolicy
from braidrec.models.projectors import Projector

COLUMNS_AT_ONCE = 256
"""So many columns go through the graph at a time, which bounds the memory beside the result."""
Propagate = Callable[[Tensor], tuple[Tensor, Tensor]]
"""`[num_items, c]` → readout `[num_nodes, L · c]`, its L levels one after the other, and level 0 `[num_nodes, c]`."""


def basis(features: Tensor, present: Tensor, policy: MissingPolicy) -> Tensor:
    """`[n, F + 2]`: `[p x, p, 1 − p]`.

    Args:
        features: `[n, F]`.
        present: `[n]` bool.
    """
    kept = policy.keeps(present).unsqueeze(-1)
    indicator = kept.to(features.dtype)
    return torch.cat([features.masked_fill(~kept, 0.0), indicator, 1 - indicator], dim=1)


def coefficients(projector: Projector, policy: MissingPolicy) -> Tensor:
    """`[F + 2, d]`: `[W; b; t]`, zeros where there is no bias or no vector for absent rows. For autograd."""
    linear = projector.linear_map
    assert linear is not None
    nothing = linear.weight.new_zeros(linear.out_features)
    bias = nothing if linear.bias is None else linear.bias
    stand_in = nothing if policy.stand_in is None else policy.stand_in
    return torch.cat([linear.weight.t(), torch.stack([bias, stand_in])])


class PropagatedAhead:
    """The propagated bases of some strands, and a strand's rows from them.

    Attributes:
        tables: by strand, `[num_nodes, L + 1, F + 2]`: level 0, then what the readout gives (L > 1 where it puts levels
            side by side).
        counted: by strand, `[num_items]` bool, the items whose row the fusion may use.
    """

    def __init__(self, tables: Mapping[str, Tensor], counted: Mapping[str, Tensor]) -> None:
        self.tables, self.counted = dict(tables), dict(counted)

    @classmethod
    def of(
        cls,
        bases: Mapping[str, Tensor],
        counted: Mapping[str, Tensor],
        propagate: Propagate,
        num_nodes: int,
        num_levels: int,
    ) -> "PropagatedAhead":
        """Send the bases `[num_items, F + 2]` through the graph.

        Args:
            num_levels: L, how many times as many columns `propagate` gives as it gets.
        """
        tables = {}
        for name, columns in bases.items():
            table = columns.new_empty(num_nodes, num_levels + 1, columns.shape[1])
            for start in range(0, columns.shape[1], COLUMNS_AT_ONCE):
                part = columns[:, start : start + COLUMNS_AT_ONCE]
                readout, ego = propagate(part)
                table[:, 0, start : start + part.shape[1]] = ego
                table[:, 1:, start : start + part.shape[1]] = readout.reshape(num_nodes, num_levels, part.shape[1])
            tables[name] = table
        return cls(tables, counted)

    def rows(self, name: str, seeds: Tensor | None, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Readout `[num_seeds, L · d]` and level 0 `[num_seeds, d]` of a strand.

        Args:
            seeds: nodes; None: all in order.
            weights: what `coefficients` gives.
        """
        table = self.tables[name]
        rows = (table if seeds is None else table.index_select(0, seeds)).to(weights.dtype) @ weights
        return rows[:, 1:].reshape(len(rows), -1), rows[:, 0]
