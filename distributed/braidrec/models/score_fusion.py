"""Late fusion of scores as a part of a model."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from braidrec.models.fusion.attention import StrandAttention
from braidrec.models.fusion.fusion import Fused
from braidrec.models.fusion.scores import ScoreCombination, fuse_scores, item_scale
from braidrec.models.fusion.strands import Strands


class ScoreFusion(nn.Module):
    """`Σ_m c_m(i) ⟨u_m, i_m⟩`, as an inner product of concatenated vectors (`fusion.scores`).

    Args:
        dims: width of each strand, by name.
        combine: "sum", "mean" (over the strands that the item has) or "weighted".
        weights: by strand, only for "weighted".
        weighting: "none", or "attention" over the item's strands (which need equal widths).
    Raises:
        ValueError: settings that do not fit each other.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        combine: ScoreCombination = "sum",
        weights: Mapping[str, float] | None = None,
        weighting: Literal["none", "attention"] = "none",
    ) -> None:
        super().__init__()
        self.dims = {name: dims[name] for name in sorted(dims)}
        self.combine, self.weights = combine, weights
        # What the scores would refuse in the first step is refused before there is one.
        item_scale({name: torch.empty(0, width) for name, width in dims.items()}, combine=combine, weights=weights)
        if weighting == "attention" and len(set(dims.values())) > 1:
            raise ValueError(f"weighting='attention' needs strands of equal width, not {dict(dims)}")
        widest = next(iter(self.dims.values()))
        self.attention = StrandAttention(widest) if weighting == "attention" else None

    @property
    def out_dim(self) -> int:
        """Columns of the concatenated vectors."""
        return sum(self.dims.values())

    def forward(
        self, users: Mapping[str, Tensor], items: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> tuple[Tensor, Fused]:
        """`[U, D]` user vectors, and the items' `[I, D]` with the attention that they were scaled by.

        Args:
            users, items: `[U, d_m]` and `[I, d_m]` by strand.
            present: `[I]` bool by strand.
        """
        attention = None if self.attention is None else self.attention(Strands.of(items, present, self.dims))
        of_users, of_items = fuse_scores(
            users,
            items,
            combine=self.combine,
            weights=self.weights,
            item_present=present,
            item_attention=attention,
        )
        return of_users, Fused(vectors=of_items, weights=attention)
