"""LightGCN's loop over hops: propagation without weights or activation."""

from typing import Literal

import torch
from torch import Tensor

from braidrec.graph.hop import Neighbourhood

Readout = Literal["mean", "sum", "last", "concat"]


def propagate(neighbourhood: Neighbourhood, h: Tensor, *, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """`E^{(l+1)} = D^{-1/2} A D^{-1/2} E^{(l)}` (He et al., LightGCN, SIGIR 2020), at the seeds, for every level.

    The loop carries `Z^{(l)} = D^{-1/2} E^{(l)}`, so that a level costs one unweighted sum and one product with
    `D^{-1}` instead of two products; `E^{(l)} = D^{1/2} Z^{(l)}` is only needed at the seeds. It holds for any chain
    of hops on one symmetric relation; chains that mix relations call `Hop.aggregate` step by step.

    Args:
        neighbourhood: the chain.
        h: `[num_input_nodes, d]` representations of level 0.
        dtype: format inside the hops; bfloat16 halves the memory traffic. The result has the type of `h`.
    Returns:
        `len(hops) + 1` tensors `[num_seeds, d]`, level 0 first.
    """
    levels = [neighbourhood.at_seeds(h, 0)]
    if not neighbourhood.hops:
        return levels
    if not _one_symmetric_relation(neighbourhood):
        return _propagate_stepwise(neighbourhood, h, levels, dtype)
    z = (h * neighbourhood.hops[0].src_scale).to(dtype)
    for level, hop in enumerate(neighbourhood.hops, start=1):
        total = hop.aggregate(z, normalise="sum")
        at_seeds = neighbourhood.at_seeds(total, level).to(h.dtype)
        levels.append(at_seeds * neighbourhood.at_seeds(hop.dst_scale, level))
        if level < len(neighbourhood.hops):
            z = total * hop.dst_scale.square().to(dtype)
    return levels


def combine_levels(levels: list[Tensor], readout: Readout) -> Tensor:
    """Readout of the levels' representations.

    Args:
        levels: L + 1 tensors `[n, d]`.
    Returns:
        `[n, d]`, or `[n, (L + 1) d]` for "concat".
    """
    if readout == "last":
        return levels[-1]
    if readout == "concat":
        return torch.cat(levels, dim=-1)
    total = torch.stack(levels).sum(0)
    return total / len(levels) if readout == "mean" else total


def _one_symmetric_relation(neighbourhood: Neighbourhood) -> bool:
    first = neighbourhood.hops[0].relation
    return first.symmetric and all(hop.relation is first for hop in neighbourhood.hops)


def _propagate_stepwise(
    neighbourhood: Neighbourhood, h: Tensor, levels: list[Tensor], dtype: torch.dtype
) -> list[Tensor]:
    z = h.to(dtype)
    for level, hop in enumerate(neighbourhood.hops, start=1):
        z = hop.aggregate(z)
        levels.append(neighbourhood.at_seeds(z, level).to(h.dtype))
    return levels
