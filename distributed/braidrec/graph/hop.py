"""One bipartite step of message passing on a relation, whole or sampled; and the chain of them."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from braidrec.graph.kernels import KERNELS, sum_sources, weighted_sum_sources
from braidrec.graph.relation import Relation
from braidrec.graph.structure import Structure

Normalisation = Literal["symmetric", "mean", "sum"]


@dataclass(frozen=True, kw_only=True)
class Hop:
    """A step from source rows to destination rows. The encoder never asks whether it spans everything or is sampled.

    Attributes:
        relation: the graph that is estimated; its degrees normalise, never those of the sample.
        structure: the edges, in local row numbers.
        kernel: "dgl" or "torch".
        src_nodes, dst_nodes: global ids of the rows; None stands for all nodes in order.
        own_rows: where each destination stands among the sources; None when destination row r is source row r.
        scale: `[num_dst]` fp32 factor that makes a sampled sum an unbiased estimate of the whole one; None is 1.
        edge_ids: `[num_edges]` the relation's edge ids; None when `structure` holds all edges in order.
    """

    relation: Relation
    structure: Structure
    kernel: str
    src_nodes: Tensor | None = None
    dst_nodes: Tensor | None = None
    own_rows: Tensor | None = None
    scale: Tensor | None = None
    edge_ids: Tensor | None = None

    @property
    def num_src(self) -> int:
        return self.structure.num_src

    @property
    def num_dst(self) -> int:
        return self.structure.num_dst

    @property
    def block(self) -> Any:
        """The step as a DGL block, for DGL's own layers (GraphSAGE, GAT). Give them the pair `(h, hop.own(h))`: the
        destinations are not always the first of the sources. Its edges are in the order of `edges()`; fixed weights are
        left to the layer (`structure.weight`)."""
        return self.structure.dgl_block_with_edge_ids

    @cached_property
    def src_scale(self) -> Tensor:
        """`[num_src, 1]`: `d_out^{-1/2}` in the whole relation."""
        return self._rows_of(self.relation.inverse_sqrt_out_degree, self.src_nodes)

    @cached_property
    def dst_scale(self) -> Tensor:
        """`[num_dst, 1]`: `d_in^{-1/2}` in the whole relation."""
        return self._rows_of(self.relation.inverse_sqrt_in_degree, self.dst_nodes)

    @cached_property
    def symmetric_factor(self) -> Tensor:
        """`[num_dst, 1]`: `dst_scale` times the factor that makes a sampled sum unbiased."""
        return self.dst_scale if self.scale is None else self.dst_scale * self.scale.unsqueeze(-1)

    @cached_property
    def carried_factor(self) -> Tensor:
        """`[num_dst, 1]`: `symmetric_factor` times `dst_scale`, for chains that carry rows scaled by `d^{-1/2}`."""
        return self.symmetric_factor * self.dst_scale

    def aggregate(self, h: Tensor, edge_weight: Tensor | None = None, normalise: Normalisation = "symmetric") -> Tensor:
        """Combine the source rows of every destination.

        * symmetric: `Σ_u w_uv h_u / √(d_out(u) · d_in(v))`
        * mean: `Σ_u w_uv h_u / d_in(v)`
        * sum: `Σ_u w_uv h_u`

        w is the relation's fixed weight times `edge_weight`, each 1 where there is none; d sums the fixed weights. With
        fixed weights that are final all three are the plain weighted sum.

        Args:
            h: `[num_src, d]`.
            edge_weight: `[num_edges]` in the order of `edges()`; None is 1. May require a gradient.
        Returns:
            `[num_dst, d]`; zeros for a destination without edges.
        """
        if normalise == "symmetric" and not self.relation.weights_are_final:
            h = h * self.src_scale.to(h.dtype)
        total = self.total(h, edge_weight)
        factor = self._factor(normalise)
        return total if factor is None else total * factor.to(total.dtype)

    def own(self, h: Tensor) -> Tensor:
        """The rows of the destination nodes themselves among the source rows `h` (self-connections, residuals)."""
        if self.own_rows is not None:
            return h[self.own_rows]
        return h[: self.num_dst]

    def sources(self, h: Tensor) -> Tensor:
        """The rows that `edges()`, `structure` and `block` count, for a caller that reads them itself: `h`.

        Only a hop that computes a part of its destinations (`graph.tiles.TiledHop`) gives others.
        """
        return h

    def kernel_sum(self, z: Tensor) -> Tensor:
        """`total` without edge weights, outside autograd; the result is the caller's to change."""
        return KERNELS[self.kernel](self.structure, z)

    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """`(source row, destination row, edge id in the relation)` of every edge, each `[num_edges]` int64."""
        ids = self.edge_ids
        if ids is None:
            ids = torch.arange(self.structure.num_edges, device=self.structure.device)
        return self.structure.indices.long(), self.structure.destinations, ids

    def total(self, h: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """`[num_dst, d]` the sum of the source rows, times the weights there are; nothing is normalised."""
        if edge_weight is None:
            return sum_sources(self.structure, h, self.kernel)
        return weighted_sum_sources(self.structure, h, edge_weight, self.kernel)

    def _factor(self, normalise: Normalisation) -> Tensor | None:
        if not self.relation.weights_are_final:  # they would be factors of 1
            if normalise == "symmetric":
                return self.symmetric_factor
            if normalise == "mean":
                return self.symmetric_factor * self.dst_scale
        return None if self.scale is None else self.scale.unsqueeze(-1)

    def _rows_of(self, values: Tensor, nodes: Tensor | None) -> Tensor:
        if nodes is not None:
            values = values.index_select(0, nodes.to(values.device))  # several times faster than values[nodes]
        return values.to(self.structure.device).unsqueeze(-1)


@dataclass(frozen=True, kw_only=True)
class Neighbourhood:
    """The chain of hops between the input rows and the seed nodes.

    Representations have levels: level 0 are the input rows, level l the destinations of hop l.

    Attributes:
        hops: in the order of propagation; may be empty (no graph: the input rows are the seeds).
        input_nodes: global ids of the input rows, to be fetched from the tables; None stands for all nodes in order.
        seeds: the nodes that the batch needs, distinct; None stands for all nodes in order.
        seeds_first: at every level the seeds are the first rows (sampled chains), and the last level holds no others;
            otherwise every level holds all nodes in order, but the last one may hold just the seeds.
        ends_at_seeds: the last level holds the seeds and no others, in their order.
    """

    hops: tuple[Hop, ...]
    input_nodes: Tensor | None
    seeds: Tensor | None
    seeds_first: bool
    ends_at_seeds: bool = True

    def at_seeds(self, h: Tensor, level: int) -> Tensor:
        """The rows of the seeds within the representation `h` of `level`."""
        if self.seeds is None:
            return h
        if self.seeds_first:
            return h[: len(self.seeds)]
        return h if self.holds_only_seeds(level) else h.index_select(0, self.seeds)

    def holds_only_seeds(self, level: int) -> bool:
        """Whether the rows of `level` are the seeds and no others, in their order."""
        return self.seeds is None or (level == len(self.hops) and self.ends_at_seeds)

    def after_first_hop(self) -> "Neighbourhood":
        """The rest of the chain, whose level 0 are the destinations of the first hop."""
        first, *others = self.hops
        return replace(self, hops=tuple(others), input_nodes=first.dst_nodes)
