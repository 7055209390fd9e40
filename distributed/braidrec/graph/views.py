"""Structure views: a relation after a random change of its edges, the same on every rank.

What happens to an edge is a hash of the seed, the view's name and the edge (its two nodes, or one of them), so that
nothing has to be drawn in order or sent around. In a symmetric relation both directions of an edge share one fate. A
view is a relation of its own, with its own degrees; the original is left as it is. A seed with the epoch in it gives
another view every epoch.

Fixed edge weights stay with the edges that stay. Where they are final (`Relation.weights_are_final`) they are not
normalised again.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braidrec.graph.hashing import normal, stream_key, uniform
from braidrec.graph.relation import Relation

_EDGES_AT_ONCE = 1 << 18
"""Edges worked on at a time: temporary arrays stay in the cache, and small on graphs of any size."""

EdgeRule = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]]
"""From the sources and destinations of some edges to a value for each."""


def drop_edges(relation: Relation, rate: float, seed: int, *, view: str = "drop_edges") -> Relation:
    """Each edge is left out with probability `rate` (edge dropout: Wu et al., SGL, SIGIR 2021).

    Args:
        rate: within [0, 1).
        seed, view: what is left out is a function of them.
    """
    _check("rate", rate, 0 <= rate < 1, "[0, 1)")
    key, number = stream_key(seed, view), _edge_numbers(relation)
    return _kept(relation, lambda sources, destinations: uniform(key, number(sources, destinations)) >= rate, view)


def drop_nodes(relation: Relation, rate: float, seed: int, *, view: str = "drop_nodes") -> Relation:
    """Each node loses all its edges with probability `rate` (node dropout: Wu et al., SGL, SIGIR 2021).

    Args:
        rate: within [0, 1).
        seed, view: which nodes do is a function of them.
    """
    _check("rate", rate, 0 <= rate < 1, "[0, 1)")
    stays = uniform(stream_key(seed, view), np.arange(relation.num_nodes)) >= rate
    return _kept(relation, lambda sources, destinations: stays[sources] & stays[destinations], view)


def drop_edges_by_degree(
    relation: Relation, keep_rate: float, seed: int, *, view: str = "drop_edges_by_degree"
) -> Relation:
    """A fixed number of edges stays, drawn without replacement with probabilities `p_uv ∝ 1/√(d_out(u) d_in(v))`.

    Degree-sensitive edge pruning (Zhou & Shen, FREEDOM, ACM Multimedia 2023): edges between popular nodes, which are
    the likeliest to be noise, go first. Of n edges (undirected ones in a symmetric relation) round(keep_rate · n) stay.
    The draw is that of `torch.multinomial`: with an exponential number of rate p for each edge, the smallest are drawn
    (Efraimidis & Spirakis, Information Processing Letters 2006). Degrees are counts of edges.

    Args:
        keep_rate: within (0, 1].
        seed, view: what stays is a function of them.
    """
    _check("keep_rate", keep_rate, 0 < keep_rate <= 1, "(0, 1]")
    key, number = stream_key(seed, view), _edge_numbers(relation)
    out_degree, in_degree = relation.out_degree.numpy(), relation.in_degree.numpy()

    def arrival(sources: NDArray[np.int64], destinations: NDArray[np.int64]) -> NDArray[np.float64]:
        scale = np.sqrt((out_degree[sources] * in_degree[destinations]).astype(np.float64))
        waiting: NDArray[np.float64] = -np.log(uniform(key, number(sources, destinations))) * scale
        return waiting

    last, last_number = _last_kept(relation, arrival, number, keep_rate)

    def stays(sources: NDArray[np.int64], destinations: NDArray[np.int64]) -> NDArray[np.bool_]:
        times = arrival(sources, destinations)
        early: NDArray[np.bool_] = (times < last) | ((times == last) & (number(sources, destinations) <= last_number))
        return early

    return _kept(relation, stays, view)


def weight_noise(relation: Relation, std: float, seed: int, *, view: str = "weight_noise") -> Relation:
    """Every edge's weight (1 where there is none) is multiplied by `max(0, 1 + std · ε)`, ε ~ N(0, 1).

    Args:
        std: not below 0. From about 0.4 on the bound at zero raises the mean noticeably.
        seed, view: ε is a function of them.
    """
    _check("std", std, 0 <= std < np.inf, "[0, ∞)")
    key, number = stream_key(seed, view), _edge_numbers(relation)
    weight = np.empty(relation.num_edges, dtype=np.float32)
    for start, sources, destinations in _edges(relation):
        factor = np.maximum(0.0, 1.0 + std * normal(key, number(sources, destinations)))
        if relation.weight is not None:
            factor *= relation.weight[start : start + len(sources)]
        weight[start : start + len(sources)] = factor
    return _derived(relation, view, relation.indptr, relation.indices, weight)


def _check(name: str, value: float, valid: bool, wanted: str) -> None:
    if not valid:
        raise ValueError(f"{name} must be within {wanted}, not {value}")


def _edge_numbers(relation: Relation) -> EdgeRule:
    """A number for every edge that depends on its nodes alone, and not on their order if the relation is symmetric."""
    num_nodes = relation.num_nodes
    if not relation.symmetric:
        return lambda sources, destinations: sources * num_nodes + destinations
    return lambda sources, destinations: (
        np.minimum(sources, destinations) * num_nodes + np.maximum(sources, destinations)
    )


def _edges(relation: Relation) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """`(first edge id, sources, destinations)` of consecutive edges, a part at a time."""
    for start in range(0, relation.num_edges, _EDGES_AT_ONCE):
        stop = min(start + _EDGES_AT_ONCE, relation.num_edges)
        first = int(np.searchsorted(relation.indptr, start, side="right")) - 1
        last = int(np.searchsorted(relation.indptr, stop, side="left"))
        counts = np.diff(relation.indptr[first : last + 1].clip(start, stop))
        destinations = np.repeat(np.arange(first, last, dtype=np.int64), counts)
        yield start, relation.indices[start:stop].astype(np.int64), destinations


def _kept(relation: Relation, stays: EdgeRule, view: str) -> Relation:
    """The relation with those edges for which `stays` is true."""
    mask = np.empty(relation.num_edges, dtype=bool)
    for start, sources, destinations in _edges(relation):
        mask[start : start + len(sources)] = stays(sources, destinations)
    before = np.zeros(relation.num_edges + 1, dtype=relation.indptr.dtype)
    np.cumsum(mask, out=before[1:])
    weight = None if relation.weight is None else relation.weight[mask]
    return _derived(relation, view, before[relation.indptr], relation.indices[mask], weight)


def _derived(
    relation: Relation, view: str, indptr: NDArray[Any], indices: NDArray[Any], weight: NDArray[np.float32] | None
) -> Relation:
    return Relation(
        f"{relation.name}~{view}",
        indptr,
        indices,
        symmetric=relation.symmetric,
        weight=weight,
        weights_are_final=relation.weights_are_final,
    )


def _last_kept(relation: Relation, arrival: EdgeRule, number: EdgeRule, keep_rate: float) -> tuple[float, int]:
    """Arrival time and number of the last edge that stays, in the order of (time, number)."""
    times, numbers = [np.empty(0)], [np.empty(0, dtype=np.int64)]
    for _, sources, destinations in _edges(relation):
        # Of an undirected edge one direction, as the other has the same time and number.
        once = sources <= destinations if relation.symmetric else slice(None)
        times.append(arrival(sources[once], destinations[once]))
        numbers.append(number(sources[once], destinations[once]))
    arrivals, edges = np.concatenate(times), np.concatenate(numbers)
    count = round(keep_rate * len(arrivals))
    if count == 0:
        return -np.inf, -1
    last = float(np.partition(arrivals, count - 1)[count - 1])
    tied = np.sort(edges[arrivals == last])
    return last, int(tied[count - 1 - int((arrivals < last).sum())])
