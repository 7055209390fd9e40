"""What items a system is told, or finds, to belong together: the relation `related`, from an item to its partners."""

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from braidrec.graph.co_interaction import co_interactions
from braidrec.graph.matrix import relation_from_matrix
from braidrec.graph.relation import Relation

RELATED = "related"


def listed_relation(
    sources: NDArray[np.int32], destinations: NDArray[np.int32], num_users: int, num_items: int
) -> Relation:
    """`related` from pairs of items: the in-neighbours of `src` are its `dst`, each once and never itself.

    Args:
        sources, destinations: `[rows]` from 0 on.
    """
    apart = sources != destinations
    values = np.ones(int(apart.sum()), dtype=np.int64)
    matrix = scipy.sparse.csr_matrix((values, (sources[apart], destinations[apart])), shape=(num_items, num_items))
    return _related(matrix, num_users, num_items)


def co_related(interactions: Relation, num_users: int, k: int) -> Relation:
    """`related` from the train split: an item's in-neighbours are the k items that share most users with it."""
    indices, _ = co_interactions(interactions, num_users, k, side="items")
    rows, places = np.nonzero(indices >= 0)
    size = len(indices)
    matrix = scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, indices[rows, places])), shape=(size, size))
    return _related(matrix, num_users, size)


def _related(matrix: scipy.sparse.csr_matrix, num_users: int, num_items: int) -> Relation:
    return relation_from_matrix(
        RELATED, matrix, first_node=num_users, num_nodes=num_users + num_items, symmetric=False, weighted=False
    )
