"""Edge list → the user–item relation, with little more memory than the edges and the relation take."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from braidrec.graph.relation import INTERACTIONS, Relation


def build_interactions(users: NDArray[Any], items: NDArray[Any], num_users: int, num_items: int) -> Relation:
    """The bipartite graph of the train interactions, both directions, as one symmetric CSC over all nodes.

    Repeated pairs become one edge. The integer type is int32 while nodes and edges fit it.

    Args:
        users, items: `[num_interactions]` indices, from 0 on either side.
    Raises:
        ValueError: an index outside its range.
    """
    return _relation(_incidence(users, items, num_users, num_items))


def build_interactions_from(
    chunks: Iterable[tuple[NDArray[Any], NDArray[Any]]], num_rows: int, num_users: int, num_items: int
) -> Relation:
    """As `build_interactions`, of interactions that arrive piece by piece.

    At the peak it holds about 17 bytes an interaction beside what reading takes: first both ends of all (8) and their
    sorted form (5), then both directions (5 each) while the result (8) is filled; and 4 bytes a node.

    Args:
        chunks: users and items of consecutive interactions; one piece is held at a time.
        num_rows: how many there are in all.
    Raises:
        ValueError: an index outside its range, or another number of interactions.
    """
    ends = np.empty((2, num_rows), dtype=np.int32 if max(num_users, num_items) < 2**31 else np.int64)
    start = 0
    for users, items in chunks:
        stop = start + len(users)
        if stop <= num_rows:
            ends[0, start:stop], ends[1, start:stop] = users, items
        start = stop
    if start != num_rows:
        raise ValueError(f"{start:,} interactions arrived, {num_rows:,} were announced")
    by_user = _incidence(ends[0], ends[1], num_users, num_items)
    del ends
    return _relation(by_user)


def _incidence(users: NDArray[Any], items: NDArray[Any], num_users: int, num_items: int) -> Any:
    """`[num_users, num_items]` in CSR, sorted, without repetitions. Its values mean nothing."""
    for side, values, bound in (("user", users, num_users), ("item", items, num_items)):
        if len(values) and (int(values.min()) < 0 or int(values.max()) >= bound):
            worst = int(values.max()) if int(values.max()) >= bound else int(values.min())
            raise ValueError(f"{side} index {worst} is outside 0 … {bound - 1}")
    ones = np.ones(len(users), dtype=np.int8)
    by_user = scipy.sparse.csr_matrix((ones, (users, items)), shape=(num_users, num_items))
    # Summing duplicates also sorts; an int8 sum may wrap around to zero, which does not matter: values are not used.
    by_user.sum_duplicates()
    return by_user


def _relation(by_user: Any) -> Relation:
    num_users, num_items = by_user.shape
    by_item = by_user.tocsc()
    num_nodes, num_edges = num_users + num_items, 2 * by_user.nnz
    dtype = np.int32 if max(num_nodes, num_edges) < np.iinfo(np.int32).max else np.int64
    indptr = np.empty(num_nodes + 1, dtype=dtype)
    indptr[: num_users + 1] = by_user.indptr
    indptr[num_users:] = by_user.nnz + by_item.indptr.astype(np.int64)
    indices = np.empty(num_edges, dtype=dtype)
    np.add(by_user.indices, num_users, out=indices[: by_user.nnz], dtype=dtype)
    indices[by_user.nnz :] = by_item.indices
    return Relation(INTERACTIONS, indptr, indices, symmetric=True)
