"""The fusion of representations: a weighting, a combination, a map."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from braidrec.models.fusion.attention import StrandAttention
from braidrec.models.fusion.combinations import COMBINATIONS
from braidrec.models.fusion.gate import StrandGate
from braidrec.models.fusion.strands import Strands, check_names
from braidrec.models.projectors import Projector

Combination = Literal["sum", "mean", "max", "weighted", "concat"]
Weighting = Literal["none", "attention", "gate"]
Map = Literal["none", "linear", "mlp"]


@dataclass(frozen=True, kw_only=True)
class Fused:
    """
    Attributes:
        vectors: `[n, D]`; zeros for a row that has no strand.
        weights: `[n, M]` what each strand counted, in the order of `Fusion.names`, 0 where it is absent: attention, or
            how far its gate was open on average. None without a weighting.
    """

    vectors: Tensor
    weights: Tensor | None


class Fusion(nn.Module):
    """`F = map(combine_m(weight_m(h^m)))` over the strands that a row has.

    The eight points of the survey's table (Xu et al., A Survey on Multimodal Recommender Systems, 2025) are
    element-wise or concatenated, heuristic or by attention, before or after propagation. In whatever order strands are
    given, they are taken in alphabetical order, so that the order changes nothing.

    Args:
        dims: width of each strand, by name. Equal ones, unless strands are concatenated without attention.
        combine: "sum", "mean" (over the present strands), "max" (of them), "weighted" (`Σ w_m h^m` with fixed weights)
            or "concat".
        weights: w_m by strand, only for "weighted". They are not divided among the strands that are there.
        weighting: "none", "attention" (`StrandAttention`) or "gate" (`StrandGate`); comes before the combination.
        attention_dim: width of the attention's query; None: that of the strands. Only with attention.
        gate_by: the strand that decides about the others; None: each decides for itself. Only with gates.
        map: "none", "linear" or "mlp" (two linear maps) of what is combined.
        out_dim: width after the map. Only with a map.
    Attributes:
        names: the strands in alphabetical order.
        out_dim: D.
    Raises:
        ValueError: settings that do not fit each other.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        *,
        combine: Combination,
        weights: Mapping[str, float] | None = None,
        weighting: Weighting = "none",
        attention_dim: int | None = None,
        gate_by: str | None = None,
        map: Map = "none",
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        _check(dims, combine, weights, weighting, attention_dim, gate_by, map, out_dim)
        self.names = tuple(sorted(dims))
        self.dims = {name: dims[name] for name in self.names}
        self.combine = combine
        fixed = None if weights is None else torch.tensor([[weights[name] for name in self.names]], dtype=torch.float64)
        self.fixed: Tensor | None
        self.register_buffer("fixed", fixed, persistent=False)
        widest = self.dims[self.names[0]]
        self.attention = StrandAttention(widest, hidden=attention_dim) if weighting == "attention" else None
        self.gate = StrandGate(self.dims, by=gate_by) if weighting == "gate" else None
        combined = sum(self.dims.values()) if combine == "concat" else widest
        self.out_dim = out_dim or combined
        self.map = Projector(combined, self.out_dim, depth=1 if map == "linear" else 2) if map != "none" else None

    def forward(self, strands: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> Fused:
        """Fuse.

        Args:
            strands: `[n, d_m]` by name. An absent row may hold anything finite.
            present: `[n]` bool by name; a strand that is not in it is there in every row.
        Raises:
            ValueError: other strands, or other widths, than the fusion was made for.
        """
        given = Strands.of(strands, present, self.dims)
        weights = None
        if self.attention is not None:
            weights = self.attention(given)
            given = given.scaled(weights)
        elif self.gate is not None:
            given, weights = self.gate(given)
        if self.fixed is not None:
            given = given.scaled(self.fixed)
        vectors = COMBINATIONS[self.combine](given)
        if self.map is not None:
            vectors = self.map(vectors)
            if given.present is not None:
                # What a bias makes of nothing.
                vectors = vectors.masked_fill(~given.present.any(-1, keepdim=True), 0.0)
        return Fused(vectors=vectors, weights=weights)


def _check(
    dims: Mapping[str, int],
    combine: str,
    weights: Mapping[str, float] | None,
    weighting: str,
    attention_dim: int | None,
    gate_by: str | None,
    map_: str,
    out_dim: int | None,
) -> None:
    check_names(list(dims))
    for name, value, known in (
        ("combine", combine, tuple(COMBINATIONS)),
        ("weighting", weighting, ("none", "attention", "gate")),
        ("map", map_, ("none", "linear", "mlp")),
    ):
        if value not in known:
            raise ValueError(f"{name}={value!r}: choose one of {list(known)}")
    if len(set(dims.values())) > 1 and (combine != "concat" or weighting == "attention"):
        what = f"combine={combine!r}" if combine != "concat" else "weighting='attention'"
        raise ValueError(f"{what} needs strands of equal width, not {dict(dims)}: project them first, or concatenate")
    if (weights is not None) != (combine == "weighted"):
        raise ValueError(f"weights={weights} with combine={combine!r}: combine='weighted' needs them, others have none")
    if weights is not None and (weights.keys() != dims.keys() or not all(map(math.isfinite, weights.values()))):
        raise ValueError(f"weights={dict(weights)}: wanted one finite number for each of {sorted(dims)}")
    for name, setting, needed, used in (
        ("attention_dim", attention_dim, "weighting='attention'", weighting == "attention"),
        ("gate_by", gate_by, "weighting='gate'", weighting == "gate"),
        ("out_dim", out_dim, "a map", map_ != "none"),
    ):
        if setting is not None and not used:
            raise ValueError(f"{name}={setting!r} has no effect without {needed}")
    if map_ != "none" and out_dim is None:
        raise ValueError(f"map={map_!r} needs out_dim, the width of its result")
