"""The whole graph in tiles of destination rows: a hop that computes some of them, from rows that all tiles share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from braidrec.graph.hop import Hop, Neighbourhood
from braidrec.graph.neighbourhood import FullGraph
from braidrec.graph.structure import Structure

ROW_COST = 8
"""What a row costs beside its edges, in edges: it is read and written several times."""


class Exchange(Protocol):
    """How a tile comes by the rows of all others. All tiles call it equally often, in one order."""

    def whole(self, h: Tensor) -> Tensor:
        """`[num_nodes, d]` the rows of all tiles, of which the caller's are `h`; not to be written to."""
        ...

    def computed(self, h: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute(whole(h))`, rows of the tile, the caller's to change."""
        ...


@dataclass(frozen=True, kw_only=True)
class TiledHop(Hop):
    """A hop over a whole relation, of which the destinations of one tile are computed.

    What goes in and comes out are the rows of the tile: `h` are `[num_dst, d]`, those of its nodes, and the sources'
    come from the exchange. Only `structure`, `block` and `edges()` count sources by node, as rows of `sources(h)`.

    Attributes:
        first_edge: the relation's id of the tile's first edge.
    """

    exchange: Exchange
    first_edge: int

    def sources(self, h: Tensor) -> Tensor:
        return self.exchange.whole(h)

    def total(self, h: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        return self.exchange.computed(h, lambda whole: Hop.total(self, whole, edge_weight))

    def kernel_sum(self, z: Tensor) -> Tensor:
        return self.exchange.computed(z, lambda whole: Hop.kernel_sum(self, whole))

    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        sources, destinations, ids = super().edges()
        return sources, destinations, ids + self.first_edge


def tile_of(graph: FullGraph, chains: Sequence[Sequence[str]], nodes: range, exchange: Exchange) -> list[Neighbourhood]:
    """The chains of relations around some neighbouring nodes, at every level these nodes themselves.

    Args:
        graph: on the CPU.
        chains: names of relations in the order of propagation.
    """
    seeds = torch.arange(nodes.start, nodes.stop)
    hops: dict[str, TiledHop] = {}
    for name in {name for chain in chains for name in chain}:
        whole = graph.hop(name)
        structure, first_edge = _rows_between(whole.structure, nodes)
        hops[name] = TiledHop(
            relation=whole.relation,
            structure=structure,
            kernel=whole.kernel,
            src_nodes=seeds,
            dst_nodes=seeds,
            exchange=exchange,
            first_edge=first_edge,
        )
    return [
        Neighbourhood(hops=tuple(hops[name] for name in chain), input_nodes=seeds, seeds=seeds, seeds_first=True)
        for chain in chains
    ]


def _rows_between(structure: Structure, nodes: range) -> tuple[Structure, int]:
    """The edges that end at some neighbouring nodes, not copied, and the number of those before them."""
    first, last = int(structure.indptr[nodes.start]), int(structure.indptr[nodes.stop])
    indptr = structure.indptr[nodes.start : nodes.stop + 1] - first
    weight = None if structure.weight is None else structure.weight[first:last]
    return Structure(indptr, structure.indices[first:last], structure.num_src, weight=weight), first


def cut_into_tiles(in_degree: np.ndarray, *, workers: int, rows_at_most: int) -> list[list[range]]:
    """Tiles for each worker: all nodes once, about the same work for all.

    Args:
        in_degree: `[num_nodes]`, over all relations.
        rows_at_most: of a tile.
    Returns:
        one tile for each worker where that is enough, otherwise about as many for each.
    Raises:
        ValueError: fewer nodes than workers.
    """
    num_nodes = len(in_degree)
    if num_nodes < workers:
        raise ValueError(f"{num_nodes} nodes are fewer than {workers} workers: set evaluation.inference=whole")
    cost = np.cumsum(in_degree.astype(np.float64) + ROW_COST)
    wanted = workers * -(-num_nodes // (rows_at_most * workers))
    bounds = np.searchsorted(cost, cost[-1] * np.arange(1, wanted) / wanted)
    bounds = np.unique(np.concatenate([[0], bounds, [num_nodes]]))
    bounds = np.unique(np.concatenate([_evenly(a, b, rows_at_most) for a, b in pairwise(bounds.tolist())]))
    if len(bounds) <= workers:  # a few nodes have nearly all edges
        bounds = np.arange(workers + 1) * num_nodes // workers
    tiles = [range(start, stop) for start, stop in pairwise(bounds.tolist())]
    costs = np.diff(np.concatenate([[0.0], cost])[bounds] if len(cost) else bounds)
    dealt: list[list[range]] = [[] for _ in range(workers)]
    load = np.zeros(workers)
    for place in np.argsort(-costs, kind="stable").tolist():
        least = int(load.argmin())
        dealt[least].append(tiles[place])
        load[least] += costs[place]
    return dealt


def _evenly(start: int, stop: int, rows_at_most: int) -> np.ndarray:
    parts = max(1, -(-(stop - start) // rows_at_most))
    return start + np.arange(parts + 1) * (stop - start) // parts
