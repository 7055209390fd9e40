"""Dense and naive counterparts of the graph code. Nothing here calls what it is meant to check: graphs are built by
sorting Python tuples, propagation is a product of dense fp64 matrices."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from braidrec.graph.relation import Relation

CPU = torch.device("cpu")
Edge = tuple[int, int]


def relation_of(
    name: str, edges: Iterable[Edge], num_nodes: int, *, symmetric: bool = False, dtype: type = np.int32
) -> Relation:
    """The relation with the edges `(source, destination)`."""
    ordered = sorted({(destination, source) for source, destination in edges})
    indptr = np.searchsorted([destination for destination, _ in ordered], np.arange(num_nodes + 1)).astype(dtype)
    return Relation(name, indptr, np.array([source for _, source in ordered], dtype=dtype), symmetric=symmetric)


def both_directions(pairs: Iterable[Edge], num_users: int) -> list[Edge]:
    """Edges of the joint node space for `(user, item)` pairs."""
    return [edge for user, item in pairs for edge in ((user, num_users + item), (num_users + item, user))]


def adjacency(edges: Iterable[Edge], num_nodes: int) -> NDArray[np.float64]:
    """`A[destination, source] = 1`."""
    matrix = np.zeros((num_nodes, num_nodes))
    for source, destination in edges:
        matrix[destination, source] = 1.0
    return matrix


def normalised(
    matrix: NDArray[np.float64], how: str = "symmetric", degrees_of: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """Entry (v, u) divided by √(d_in(v) d_out(u)), d_in(v) or 1; the degrees are those of `degrees_of`."""
    counted = matrix if degrees_of is None else degrees_of
    in_degree, out_degree = counted.sum(1), counted.sum(0)
    divisor = {
        "symmetric": np.sqrt(np.outer(in_degree, out_degree)),
        "mean": np.broadcast_to(in_degree[:, None], matrix.shape),
        "sum": np.ones_like(matrix),
    }[how]
    return np.divide(matrix, divisor, out=np.zeros_like(matrix), where=(matrix != 0) & (divisor != 0))


def random_pairs(seed: int, num_users: int, num_items: int, count: int) -> list[Edge]:
    """Skewed `(user, item)` pairs that leave the last user and the last item without any; repetitions are likely."""
    rng = np.random.default_rng(seed)
    users = (rng.random(count) ** 1.5 * (num_users - 1)).astype(int)
    items = (rng.random(count) ** 2.0 * (num_items - 1)).astype(int)
    return list(zip(users.tolist(), items.tolist(), strict=True))


def random_edges(seed: int, nodes: Sequence[int], count: int) -> list[Edge]:
    """Directed edges among `nodes` whose in- and out-degrees differ; the last node has neither."""
    rng = np.random.default_rng(seed)
    sources = (rng.random(count) ** 2.0 * (len(nodes) - 1)).astype(int)
    destinations = rng.integers(0, len(nodes) - 1, count)
    return [(nodes[s], nodes[d]) for s, d in zip(sources, destinations, strict=True) if s != d]


def rows(seed: int, num_nodes: int, dim: int) -> torch.Tensor:
    """Random representations `[num_nodes, dim]`, fp32."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(num_nodes, dim))).float()


def assert_near(actual: torch.Tensor, wanted: NDArray[np.float64], tolerance: float = 2e-6) -> None:
    """Equality of an fp32 result with the fp64 oracle."""
    np.testing.assert_allclose(actual.detach().double().numpy(), wanted, rtol=tolerance * 5, atol=tolerance)
