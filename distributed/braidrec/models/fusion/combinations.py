"""Strands that count what they count already → one representation. Absent ones are zero in the rows given.

Element-wise ones need equal widths. Where a row has no strand at all, the result is zero.
"""

from collections.abc import Callable
from functools import reduce

import torch
from torch import Tensor

from braidrec.models.fusion.strands import Strands


def _sum(strands: Strands) -> Tensor:
    """`Σ_m h^m`."""
    return reduce(torch.add, strands.rows.values())


def _mean(strands: Strands) -> Tensor:
    """`Σ_m h^m / |{m present}|`."""
    if strands.present is None:
        return _sum(strands) / len(strands.rows)
    return _sum(strands) / strands.present.sum(-1, keepdim=True).clamp(min=1)


def _max(strands: Strands) -> Tensor:
    """`max_{m present} h^m`; equal maxima share the gradient."""
    stacked = torch.stack(list(strands.rows.values()), dim=1)
    if strands.present is None:
        return stacked.amax(1)
    present = strands.present.unsqueeze(-1)
    lowest = torch.finfo(stacked.dtype).min
    return torch.where(present.any(1), torch.where(present, stacked, lowest).amax(1), 0.0)


def _concat(strands: Strands) -> Tensor:
    """`[h^1 ‖ … ‖ h^M]`, in the alphabetical order of the names."""
    return torch.cat(list(strands.rows.values()), dim=-1)


COMBINATIONS: dict[str, Callable[[Strands], Tensor]] = {
    "sum": _sum,
    "mean": _mean,
    "max": _max,
    "weighted": _sum,
    "concat": _concat,
}
"""`weighted` is the sum of strands that fixed weights have been applied to."""
