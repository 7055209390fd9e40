"""User–user and item–item neighbours and relations: who has the most interactions in common with whom."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from braidrec.graph.knn import Neighbours
from braidrec.graph.matrix import relation_from_matrix
from braidrec.graph.relation import Relation

CO_INTERACTION = "co_interaction"
Side = Literal["users", "items"]
CoInteractionWeight = Literal["none", "softmax", "cosine"]

PAIRS_AT_ONCE = 1 << 23
"""Pairs of rows with something in common that are held at a time, at about 30 bytes each."""


class CoInteractions(NamedTuple):
    """Of every user (or item), those with the most in common, most first; of equal counts the lower index first.

    Attributes:
        indices: `[num_rows, k]` int64 from 0 on within the side, −1 where there are fewer than k.
        counts: `[num_rows, k]` int64 of common items (users), 0 where there is none.
    """

    indices: NDArray[np.int64]
    counts: NDArray[np.int64]


def co_interaction_relation(
    interactions: Relation,
    num_users: int,
    k: int,
    *,
    side: Side = "users",
    weight: CoInteractionWeight = "none",
    pairs_at_once: int = PAIRS_AT_ONCE,
) -> Relation:
    """The relation `co_interaction`: a user's in-neighbours are the k users who share most items. It is directed.

    Args:
        interactions: the train interactions, over the joint node space, in both directions.
        num_users: nodes below are users.
        k: neighbours a user (an item).
        side: "items" does the same for items, by the users they share.
        weight: "none"; "softmax" of a node's counts, final (Wang et al., DualGNN, IEEE Transactions on Multimedia
            2021); "cosine", `c_uv / √(d_u d_v)` with c the count and d the number of interactions.
        pairs_at_once: bounds the memory.
    Raises:
        ValueError: an unknown side or weight, k or pairs_at_once below 1.
    """
    if weight not in ("none", "softmax", "cosine"):
        raise ValueError(f"weight must be 'none', 'softmax' or 'cosine', not {weight!r}")
    indices, counts = co_interactions(interactions, num_users, k, side=side, pairs_at_once=pairs_at_once)
    found = indices >= 0
    rows, _ = np.nonzero(found)
    if weight == "softmax":
        values = _softmax(counts, found)[found]
    elif weight == "cosine":
        degree = np.diff(_incidence(interactions, num_users, side).indptr).astype(np.float64)
        values = counts[found] / np.sqrt(degree[rows] * degree[indices[found]])
    else:
        values = np.ones(len(rows))
    return relation_from_matrix(
        CO_INTERACTION,
        scipy.sparse.csr_matrix((values, (rows, indices[found])), shape=(len(indices), len(indices))),
        first_node=0 if side == "users" else num_users,
        num_nodes=interactions.num_nodes,
        symmetric=False,
        weighted=weight != "none",
        weights_are_final=weight == "softmax",
    )


def co_interactions(
    interactions: Relation, num_users: int, k: int, *, side: Side = "users", pairs_at_once: int = PAIRS_AT_ONCE
) -> CoInteractions:
    """The k users (items) with the highest number of common items (users), the row itself excluded.

    Sparse products of a few rows at a time; the time is that of `Σ_i d_i²` additions, d the degrees of the other side.
    Arguments and errors as for `co_interaction_relation`.
    """
    _check_search(side, k, pairs_at_once)
    incidence = _incidence(interactions, num_users, side)
    transposed = incidence.T.tocsr()
    indices = np.full((incidence.shape[0], k), -1, dtype=np.int64)
    counts = np.zeros((incidence.shape[0], k), dtype=np.int64)
    key = _Key.for_matrix(incidence)
    for start, stop in _tiles(incidence, transposed, pairs_at_once, key.most_rows):
        rows, places, others, common = key.best(incidence[start:stop] @ transposed, start, k)
        indices[rows + start, places] = others
        counts[rows + start, places] = common
    return CoInteractions(indices, counts)


def co_interaction_neighbours(
    interactions: Relation,
    num_users: int,
    k: int,
    *,
    side: Side = "items",
    shrinkage: float = 0.0,
    pairs_at_once: int = PAIRS_AT_ONCE,
) -> Neighbours:
    """The k items (users) of highest cosine of the sets of their users (items), the row itself excluded.

    `s_ij = c_ij / (√(d_i d_j) + h)`, c the common ones, d the sizes of the sets, h the shrinkage, which takes
    similarities back that stand on few interactions. Of equal ones the lower index comes first. Rows that have nothing
    in common are no neighbours.

    Args:
        interactions: the train interactions, over the joint node space, in both directions.
        num_users: nodes below are users.
        k: neighbours an item.
        side: "users" does the same for users.
        shrinkage: h.
        pairs_at_once: bounds the memory.
    Raises:
        ValueError: an unknown side, k or pairs_at_once below 1, a negative shrinkage.
    """
    _check_search(side, k, pairs_at_once)
    if not 0 <= shrinkage < np.inf:
        raise ValueError(f"shrinkage must be a finite number of at least 0, not {shrinkage}")
    incidence = _incidence(interactions, num_users, side)
    transposed = incidence.T.tocsr()
    num_rows = incidence.shape[0]
    size = np.diff(incidence.indptr).astype(np.float64)
    indices = np.full((num_rows, k), -1, dtype=np.int32 if num_rows < 2**31 else np.int64)
    similarity = np.zeros((num_rows, k), dtype=np.float32)
    for start, stop in _tiles(incidence, transposed, pairs_at_once, num_rows):
        product = incidence[start:stop] @ transposed
        rows = np.repeat(np.arange(start, stop), np.diff(product.indptr))
        others = product.indices.astype(np.int64)
        values = product.data / (np.sqrt(size[rows] * size[others]) + shrinkage)
        order = np.lexsort((others, -values, rows))
        order = order[rows[order] != others[order]]
        rows, others, values = rows[order], others[order], values[order]
        places = np.arange(len(rows)) - np.searchsorted(rows, np.arange(start, stop))[rows - start]
        kept = places < k
        indices[rows[kept], places[kept]] = others[kept]
        similarity[rows[kept], places[kept]] = values[kept]
    return Neighbours(indices, similarity)


class _Key(NamedTuple):
    """Row, count and neighbour in one uint64, that sorts by row ascending, count descending, neighbour ascending."""

    highest_count: int
    count_bits: int
    index_bits: int

    @classmethod
    def for_matrix(cls, incidence: Any) -> "_Key":
        highest = int(np.diff(incidence.indptr).max(initial=0))
        return cls(highest, highest.bit_length(), max(incidence.shape[0] - 1, 0).bit_length())

    @property
    def most_rows(self) -> int:
        return 1 << (64 - self.count_bits - self.index_bits)

    def best(self, product: Any, start: int, k: int) -> tuple[NDArray[np.int64], ...]:
        """`(row, place within the row, neighbour, count)` of the best k entries of each row of a product (CSR), whose
        row 0 is row `start` of the whole."""
        rows = np.repeat(np.arange(product.shape[0], dtype=np.uint64), np.diff(product.indptr))
        keys = (rows << np.uint64(self.count_bits)) | (self.highest_count - product.data).astype(np.uint64)
        keys = (keys << np.uint64(self.index_bits)) | product.indices.astype(np.uint64)
        keys = keys[product.indices != rows.astype(np.int64) + start]
        keys.sort()
        rows = (keys >> np.uint64(self.count_bits + self.index_bits)).astype(np.int64)
        first = np.searchsorted(rows, np.arange(product.shape[0]))
        places = np.arange(len(rows)) - first[rows]
        kept = places < k
        lower = keys[kept]
        others = (lower & np.uint64((1 << self.index_bits) - 1)).astype(np.int64)
        missing = ((lower >> np.uint64(self.index_bits)) & np.uint64((1 << self.count_bits) - 1)).astype(np.int64)
        return rows[kept], places[kept], others, self.highest_count - missing


def _check_search(side: str, k: int, pairs_at_once: int) -> None:
    if side not in ("users", "items"):
        raise ValueError(f"side must be 'users' or 'items', not {side!r}")
    for name, value in (("k", k), ("pairs_at_once", pairs_at_once)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")


def _incidence(interactions: Relation, num_users: int, side: Side) -> Any:
    """`[num_users, num_items]`, or its transpose for items, of ones; a view of the relation's own arrays as far as
    scipy can."""
    num_items = interactions.num_nodes - num_users
    if side == "users":
        num_rows, num_columns, first, offset = num_users, num_items, 0, num_users
    else:
        num_rows, num_columns, first, offset = num_items, num_users, num_users, 0
    indptr = interactions.indptr[first : first + num_rows + 1].astype(np.int64)
    indices = interactions.indices[indptr[0] : indptr[-1]] - interactions.indices.dtype.type(offset)
    ones = np.ones(len(indices), dtype=np.int32)
    return scipy.sparse.csr_matrix((ones, indices, indptr - indptr[0]), shape=(num_rows, num_columns))


def _tiles(incidence: Any, transposed: Any, pairs_at_once: int, most_rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows whose products have at most `pairs_at_once` entries, or of one row."""
    # Row u of the product has at most Σ_{i ∈ N(u)} d_i entries, and no more than there are rows.
    bound = np.minimum(incidence @ np.diff(transposed.indptr).astype(np.int64), incidence.shape[0])
    ends = np.cumsum(bound)
    start = 0
    while start < len(bound):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + pairs_at_once, side="right"))
        stop = min(max(stop, start + 1), start + most_rows)
        yield start, stop
        start = stop


def _softmax(counts: NDArray[np.int64], found: NDArray[np.bool_]) -> NDArray[np.float64]:
    """`exp(c_v) / Σ_v exp(c_v)` over the neighbours that are there."""
    highest = counts.max(axis=1, keepdims=True, initial=0)
    raised = np.where(found, np.exp((counts - highest).astype(np.float64)), 0.0)
    total = raised.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.divide(raised, total, out=np.zeros_like(raised), where=total > 0)
    return shares
