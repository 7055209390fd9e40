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
        return list(_ScaledChain.apply(neighbourhood, h, dtype, None))
    levels = [neighbourhood.at_seeds(h, 0)]
    z = h.to(dtype)
    for level, hop in enumerate(neighbourhood.hops, start=1):
        z = hop.aggregate(z)
        levels.append(neighbourhood.at_seeds(z, level).to(h.dtype))
    return levels


def propagate_to_last(neighbourhood: Neighbourhood, h: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """`[num_seeds, d]` the last level of `propagate`, without reading the others off at the seeds."""
    z = h.to(dtype or h.dtype)
    for hop in neighbourhood.hops:
        z = hop.aggregate(z)
    return neighbourhood.at_seeds(z, len(neighbourhood.hops)).to(h.dtype)


def propagate_to_readout(
    neighbourhood: Neighbourhood, h: Tensor, readout: Readout, *, dtype: torch.dtype | None = None, ego: bool = True
) -> tuple[Tensor, Tensor]:
    """`propagate`, then `combine_levels`, without keeping the levels where the readout needs only their weighted sum.

    Args:
        ego: level 0 is one of the levels that are combined; without it there must be hops.
    Returns:
        the readout and level 0, both at the seeds.
    """
    num_levels = len(neighbourhood.hops) + 1
    if readout == "concat" or not _one_symmetric_relation(neighbourhood):
        levels = propagate(neighbourhood, h, dtype=dtype)
        return combine_levels(levels if ego else levels[1:], readout), levels[0]
    weights = _level_weights(readout, num_levels) if ego else (0.0, *_level_weights(readout, num_levels - 1))
    vectors, first = _ScaledChain.apply(neighbourhood, h, dtype or h.dtype, weights)
    return vectors, first


def combine_levels(levels: Sequence[Tensor], readout: Readout) -> Tensor:
    """Readout of the levels' representations.

    Args:
        levels: tensors `[n, d]`, at least one.
    Returns:
        `[n, d]`, or all columns side by side for "concat".
    """
    if readout == "last":
        return levels[-1]
    if readout == "concat":
        return torch.cat(list(levels), dim=-1)
    total = levels[0]
    for level in levels[1:]:
        total = total + level
    return total / len(levels) if readout == "mean" else total


def _level_weights(readout: Readout, num_levels: int) -> tuple[float, ...]:
    """By which factor the readout takes each level."""
    if readout == "last":
        return (0.0,) * (num_levels - 1) + (1.0,)
    return (1.0 / num_levels if readout == "mean" else 1.0,) * num_levels


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

    With `weights` w it returns `Σ_l w_l E^{(l)}` and `E^{(0)}` at the seeds, without them every `E^{(l)}`.
    """

    @staticmethod
    def forward(
        ctx: Any, neighbourhood: Neighbourhood, h: Tensor, dtype: torch.dtype, weights: tuple[float, ...] | None
    ) -> tuple[Tensor, ...]:
        ctx.neighbourhood, ctx.input_dtype, ctx.dtype, ctx.weights = neighbourhood, h.dtype, dtype, weights
        ctx.set_materialize_grads(False)
        hops = neighbourhood.hops
        levels = [neighbourhood.at_seeds(h, 0).clone()]
        if weights is not None:
            levels.insert(0, levels[0] * weights[0])
        z = (h * hops[0].src_scale).to(dtype)
        for level, hop in enumerate(hops, start=1):
            z = hop.kernel_sum(z)
            rows, factor = neighbourhood.at_seeds(z, level), neighbourhood.at_seeds(hop.symmetric_factor, level)
            if weights is None:
                levels.append((rows * factor).to(h.dtype))
            elif weights[level]:
                levels[0].addcmul_(rows.to(h.dtype), factor, value=weights[level])
            if level < len(hops):
                z.mul_(hop.carried_factor.to(dtype))
        return tuple(levels)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[None, Tensor | None, None, None]:
        neighbourhood: Neighbourhood = ctx.neighbourhood
        total: Tensor | None = None
        for level in range(len(neighbourhood.hops), 0, -1):
            hop = neighbourhood.hops[level - 1]
            if total is not None:
                total.mul_(hop.carried_factor.to(ctx.dtype))
            arrived = _gradient_of_level(level, gradients, ctx.weights, neighbourhood)
            if arrived is not None:
                total = _add_at_seeds(total, arrived.to(ctx.dtype), neighbourhood, level, hop.num_dst)
            if total is not None:
                total = KERNELS[hop.kernel](hop.structure.transposed, total)
        first = neighbourhood.hops[0]
        if total is not None:
            total = total.to(ctx.input_dtype).mul_(first.src_scale)
        arrived = _gradient_of_first_level(gradients, ctx.weights)
        if arrived is not None:
            total = _add_at_seeds(total, arrived, neighbourhood, 0, first.num_src)
        return None, total, None, None


def _gradient_of_level(
    level: int, gradients: Sequence[Tensor | None], weights: tuple[float, ...] | None, neighbourhood: Neighbourhood
) -> Tensor | None:
    """What arrives at the seeds' rows of a level > 0, brought from E to the carried Z."""
    gradient = gradients[level] if weights is None else gradients[0]
    if gradient is None or (weights is not None and not weights[level]):
        return None
    factor = neighbourhood.at_seeds(neighbourhood.hops[level - 1].symmetric_factor, level)
    return gradient * (factor if weights is None else factor * weights[level])


def _gradient_of_first_level(gradients: Sequence[Tensor | None], weights: tuple[float, ...] | None) -> Tensor | None:
    if weights is None:
        return gradients[0]
    of_readout, of_ego = gradients
    if of_readout is None or not weights[0]:
        return of_ego
    return of_readout * weights[0] if of_ego is None else of_ego.add(of_readout, alpha=weights[0])


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
