"""Edge list → the user–item relation."""

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
    for side, values, bound in (("user", users, num_users), ("item", items, num_items)):
        if len(values) and (int(values.min()) < 0 or int(values.max()) >= bound):
            worst = int(values.max()) if int(values.max()) >= bound else int(values.min())
            raise ValueError(f"{side} index {worst} is outside 0 … {bound - 1}")
    ones = np.ones(len(users), dtype=np.int8)
    by_user = scipy.sparse.csr_matrix((ones, (users, items)), shape=(num_users, num_items))
    # Summing duplicates also sorts; an int8 sum may wrap around to zero, which does not matter: values are not used.
    by_user.sum_duplicates()
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
