"""Attention along edges: how alike the two ends of each are, as shares among the sources of a destination.

DGL's kernels hold one number an edge; the torch ones for devices without them hold one row an edge.
"""

import torch
from torch import Tensor

from braidrec.graph.dgl_import import dgl
from braidrec.graph.structure import Structure


def end_products(structure: Structure, sources: Tensor, destinations: Tensor, kernel: str) -> Tensor:
    """`⟨s_u, t_v⟩` of every edge u → v, differentiable in both.

    Args:
        structure: the edges; weights of its own are not looked at.
        sources: `[num_src, d]`, s.
        destinations: `[num_dst, d]`, t.
        kernel: "dgl" or "torch".
    Returns:
        `[num_edges]` in the structure's edge order.
    """
    if kernel == "dgl":
        products: Tensor = dgl.ops.u_dot_v(structure.dgl_block_with_edge_ids, sources, destinations)
        return products.squeeze(-1)
    return (sources[structure.indices.long()] * destinations[structure.destinations]).sum(-1)


def softmax_over_sources(structure: Structure, scores: Tensor, kernel: str) -> Tensor:
    """`exp(s_e) / Σ_e' exp(s_e')`, e' over the edges with the destination of e, differentiable.

    On a sampled structure the shares are those among the drawn sources. A sum of rows that is weighted by them
    estimates the one over all sources as it is, without the scale of plain sampled sums.

    Args:
        structure: the edges; weights of its own are not looked at.
        scores: `[num_edges]` in the structure's edge order.
        kernel: "dgl" or "torch".
    Returns:
        `[num_edges]`, above 0.
    """
    if kernel == "dgl":
        shares: Tensor = dgl.ops.edge_softmax(structure.dgl_block_with_edge_ids, scores.unsqueeze(-1))
        return shares.squeeze(-1)
    destinations = structure.destinations
    largest = scores.new_full((structure.num_dst,), -torch.inf)
    largest = largest.scatter_reduce(0, destinations, scores.detach(), "amax")
    raised = (scores - largest[destinations]).exp()
    total = raised.new_zeros(structure.num_dst).index_add(0, destinations, raised)
    return raised / total[destinations]
