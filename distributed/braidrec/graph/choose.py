"""Full graph or sampled subgraph: decided by what a training step costs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from braidrec.graph.relation import Relation

# Nanoseconds on one pair of CPU cores at d = 64, forward and backward (benchmarks/propagation.py prints them). Only
# their ratios decide.
_FULL_EDGE = 12.0
_FULL_NODE = 60.0
_SAMPLED_EDGE = 400.0


@dataclass(frozen=True, kw_only=True)
class PropagationChoice:
    mode: str
    """ "full" or "sampled"."""
    reason: str
    """One sentence with the figures that decided."""


def choose_propagation(
    relations: Sequence[Relation],
    *,
    fan_outs: Sequence[int],
    seeds_per_step: int,
    dim: int,
    memory_bytes: int,
    wanted: str = "auto",
) -> PropagationChoice:
    """Compare one step of exact propagation with one step of sampled propagation.

    Args:
        relations: one a hop, in the order of propagation.
        fan_outs: one a hop, from the seed nodes outwards.
        seeds_per_step: seed nodes of one worker's batch.
        dim: size of a representation.
        memory_bytes: what one worker may use.
        wanted: "full" or "sampled" settles it.
    """
    if wanted != "auto":
        return PropagationChoice(mode=wanted, reason="set by propagation.mode")
    if not relations:
        return PropagationChoice(mode="full", reason="the encoder has no hops")
    num_nodes = relations[0].num_nodes
    full_bytes = 4 * dim * num_nodes * (2 * len(relations) + 6)
    if full_bytes > memory_bytes:
        return PropagationChoice(
            mode="sampled",
            reason=f"the whole graph needs about {full_bytes / 1e9:.1f} GB of activations, a worker has "
            f"{memory_bytes / 1e9:.1f} GB",
        )
    # The last hop of exact propagation is computed for the seeds only: as if all their neighbours were drawn.
    full_edges = sum(relation.num_edges for relation in relations[:-1])
    full_edges += _expected_edges(relations[-1:], [-1], seeds_per_step)
    sampled_edges = _expected_edges(list(reversed(relations)), fan_outs, seeds_per_step)
    full = full_edges * _FULL_EDGE + num_nodes * len(relations) * _FULL_NODE
    sampled = sampled_edges * _SAMPLED_EDGE
    figures = f"{full_edges:,} edges a step in full against about {sampled_edges:,} sampled"
    scale = dim / 64 / 1e6
    return PropagationChoice(
        mode="full" if full <= sampled else "sampled",
        reason=f"{figures}, estimated {full * scale:.0f} against {sampled * scale:.0f} ms on two cores",
    )


def _expected_edges(relations: Sequence[Relation], fan_outs: Sequence[int], seeds: int) -> int:
    """Estimate of the edges drawn, from the seeds outwards.

    A node of degree d gives min(fan-out, d) edges. Seeds come from interactions, and further nodes are reached along
    edges, both in proportion to their degree. Of n such draws among N nodes about N (1 − e^{−n/N}) are distinct.
    """
    total, frontier = 0, float(seeds)
    for relation, fan_out in zip(relations, fan_outs, strict=True):
        degree = relation.in_degree.double()
        drawn_each = degree if fan_out < 0 else degree.clamp(max=fan_out)
        mean = float((degree * drawn_each).sum() / degree.sum().clamp(min=1))
        num_nodes = max(1, int((degree > 0).sum()))
        distinct = num_nodes * -math.expm1(-frontier / num_nodes)
        drawn = min(distinct * mean, float(relation.num_edges))
        total += int(drawn)
        frontier = distinct + drawn
    return total
