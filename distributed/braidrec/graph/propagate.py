"""LightGCN's loop over hops: propagation without weights or activation."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from braidrec.graph.hop import Neighbourhood
from braidrec.graph.kernels import KERNELS

Readout = Literal["mean", "sum", "last", "concat"]


def propagate(neighbourhood: Neighbourhood, h: Tensor, *, dtype: torch.dtype | None = None) -> list[Tensor]:
    """`E^{(l+1)} = D^{-1/2} A D^{-1/2} E^{(l)}` (He et al., LightGCN, SIGIR 2020), at the seeds, for every level.

    Args:
        neighbourhood: the chain, which may mix relations.
        h: `[num_input_nodes, d]` representations of level 0.
        dtype: format inside the hops, None: that of `h`; bfloat16 halves the memory traffic. The result has the type of
            `h`.
    Returns:
        `len(hops) + 1` tensors `[num_seeds, d]`, level 0 first.
    """
    dtype = dtype or h.dtype
    if _one_symmetric_relation(neighbourhood):
        return list(_ScaledChain.apply(neighbourhood, h, dtype))
    levels = [neighbourhood.at_seeds(h, 0)]
    z = h.to(dtype)
    for level, hop in enumerate(neighbourhood.hops, start=1):
        z = hop.aggregate(z)
        levels.append(neighbourhood.at_seeds(z, level).to(h.dtype))
    return levels


def combine_levels(levels: Sequence[Tensor], readout: Readout) -> Tensor:
    """Readout of the levels' representations.

    Args:
        levels: L + 1 tensors `[n, d]`.
    Returns:
        `[n, d]`, or `[n, (L + 1) d]` for "concat".
    """
    if readout == "last":
        return levels[-1]
    if readout == "concat":
        return torch.cat(list(levels), dim=-1)
    total = levels[0]
    for level in levels[1:]:
        total = total + level
    return total / len(levels) if readout == "mean" else total


def _one_symmetric_relation(neighbourhood: Neighbourhood) -> bool:
    relations = {id(hop.relation): hop.relation for hop in neighbourhood.hops}
    return len(relations) == 1 and next(iter(relations.values())).symmetric


class _ScaledChain(torch.autograd.Function):
    """All hops of one symmetric relation in one differentiable step.

    It carries `Z^{(l)} = D^{-1/2} E^{(l)}`, so that a level costs one unweighted sum and one scaling in place, where
    hops called one by one need two scalings and a copy of each; what the seeds need is read off on the way. With S the
    sum over the (drawn) in-neighbours, c the factor that makes it unbiased and p = D^{-1/2}:

        Z^{(0)} = p E^{(0)},   E^{(l)} = p c S Z^{(l-1)},   Z^{(l)} = p E^{(l)}.

    The backward pass is the same chain in reverse over the transposed structures.
    """

    @staticmethod
    def forward(ctx: Any, neighbourhood: Neighbourhood, h: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
        ctx.neighbourhood, ctx.input_dtype, ctx.dtype = neighbourhood, h.dtype, dtype
        ctx.set_materialize_grads(False)
        hops = neighbourhood.hops
        levels = [neighbourhood.at_seeds(h, 0).clone()]
        z = (h * hops[0].src_scale).to(dtype)
        for level, hop in enumerate(hops, start=1):
            z = KERNELS[hop.kernel](hop.structure, z)
            factor = hop.symmetric_factor
            levels.append((neighbourhood.at_seeds(z, level) * neighbourhood.at_seeds(factor, level)).to(h.dtype))
            if level < len(hops):
                z.mul_((factor * hop.dst_scale).to(dtype))
        return tuple(levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, Tensor | None, None]:
        neighbourhood: Neighbourhood = ctx.neighbourhood
        total: Tensor | None = None
        for level in range(len(neighbourhood.hops), 0, -1):
            hop = neighbourhood.hops[level - 1]
            factor = hop.symmetric_factor
            if total is not None:
                total.mul_((factor * hop.dst_scale).to(ctx.dtype))
            arrived = gradients[level]
            if arrived is not None:
                arrived = (arrived * neighbourhood.at_seeds(factor, level)).to(ctx.dtype)
                total = _add_at_seeds(total, arrived, neighbourhood, level, hop.num_dst)
            if total is not None:
                total = KERNELS[hop.kernel](hop.structure.transposed, total)
        first = neighbourhood.hops[0]
        if total is not None:
            total = total.to(ctx.input_dtype).mul_(first.src_scale)
        if gradients[0] is not None:
            total = _add_at_seeds(total, gradients[0], neighbourhood, 0, first.num_src)
        return None, total, None


def _add_at_seeds(total: Tensor | None, rows: Tensor, neighbourhood: Neighbourhood, level: int, size: int) -> Tensor:
    """Add `rows`, those of the seeds, to the rows of a level (None stands for zeros); the adjoint of `at_seeds`."""
    if neighbourhood.holds_only_seeds(level):
        return rows.contiguous() if total is None else total.add_(rows)
    if total is None:
        total = rows.new_zeros(size, rows.shape[1])
    if neighbourhood.seeds_first:
        total[: len(rows)] += rows
        return total
    assert neighbourhood.seeds is not None
    return total.index_add_(0, neighbourhood.seeds, rows)
