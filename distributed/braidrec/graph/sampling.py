"""Drawing the in-neighbours of a set of nodes with DGL, and the factor that keeps the sum unbiased."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from braidrec.graph.dgl_import import dgl
from braidrec.graph.relation import Relation


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Drawn edges by destination, in local rows.

    Attributes:
        src_nodes: global ids of the source rows; the destinations come first, in their order.
        indptr, indices: int32 CSC over the destinations.
        edge_ids: the relation's id of every edge.
        scale: `[num_dst]` fp32 that makes a sum over the drawn edges unbiased; None is 1 everywhere.
    """

    src_nodes: Tensor
    indptr: Tensor
    indices: Tensor
    edge_ids: Tensor
    scale: Tensor | None


def draw_neighbours(
    relation: Relation, destinations: Tensor, fan_out: int, seed: int, exclude: Tensor | None = None
) -> Draw:
    """`k = min(fan_out, d)` of the d in-neighbours of each destination, uniformly without replacement.

    A sum over them times `d / k` is an unbiased estimate of the sum over all. Edges in `exclude` are removed after
    the draw and stay counted in k, so that the estimate is of the graph without them.

    Args:
        destinations: distinct global ids, int64.
        fan_out: −1 takes every neighbour, and the draw is exact.
        seed: what is drawn is a function of it, for a fixed number of threads. DGL has a seed but no state to save:
            seeding before every draw is what makes a run resumable.
        exclude: sorted edge ids, or None.
    """
    dgl.seed(seed)
    frontier = dgl.sampling.sample_neighbors(relation.sampling_graph, _as_ids(destinations, relation), fan_out)
    if fan_out < 0:
        return _compact(frontier, destinations, exclude, None)
    degree = relation.in_degree_of(destinations).float()
    return _compact(frontier, destinations, exclude, (degree / fan_out).clamp(min=1.0))


def draw_labor(
    relation: Relation, destinations: Tensor, fan_out: int, seed: int, exclude: Tensor | None = None
) -> Draw:
    """LABOR-0 (Balin & Çatalyürek, NeurIPS 2023): each edge with probability `min(1, fan_out / d)`.

    One random number a *source* decides for all its edges, so destinations share sources and fewer rows are fetched.
    The number of edges drawn varies; the unbiased factor is `max(1, d / fan_out)`, never the realised count.
    """
    if fan_out < 0:
        return draw_neighbours(relation, destinations, fan_out, seed, exclude)
    frontier, _ = dgl.sampling.sample_labors(
        relation.sampling_graph,
        _as_ids(destinations, relation),
        fan_out,
        importance_sampling=0,
        random_seed=dgl.backend.to_dgl_nd(torch.tensor([seed])),
    )
    degree = relation.in_degree_of(destinations).float()
    return _compact(frontier, destinations, exclude, (degree / fan_out).clamp(min=1.0))


SAMPLERS: dict[str, Callable[[Relation, Tensor, int, int, Tensor | None], Draw]] = {
    "neighbour": draw_neighbours,
    "labor": draw_labor,
}


def _as_ids(nodes: Tensor, relation: Relation) -> Tensor:
    """In the integer type of the relation, which DGL insists on."""
    return nodes.to(relation.sampling_graph.idtype)


def _compact(frontier: Any, destinations: Tensor, exclude: Tensor | None, scale: Tensor | None) -> Draw:
    """Number the sources of the drawn edges locally, destinations first."""
    edge_ids = frontier.edata[dgl.EID].long()
    if exclude is not None and len(exclude):
        sources, targets = frontier.edges()
        place = torch.searchsorted(exclude, edge_ids).clamp(max=len(exclude) - 1)
        kept = exclude[place] != edge_ids
        edge_ids = edge_ids[kept]
        frontier = dgl.graph((sources[kept], targets[kept]), num_nodes=frontier.num_nodes())
    block = dgl.to_block(frontier, destinations.to(frontier.idtype))
    indptr, indices, order = block.adj_tensors("csc")
    drawn = edge_ids.index_select(0, block.edata[dgl.EID].long())
    return Draw(
        src_nodes=block.srcdata[dgl.NID].long(),
        indptr=indptr.int(),
        indices=indices.int(),
        edge_ids=drawn.index_select(0, order.long()) if len(order) else drawn,
        scale=scale,
    )
