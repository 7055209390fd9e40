"""Several weighted graphs over the same nodes as one relation, with what each has on every edge."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from braidrec.graph.matrix import relation_from_matrix
from braidrec.graph.relation import Relation


def union_relation(name: str, parts: Sequence[Any]) -> tuple[Relation, NDArray[np.float32]]:
    """The relation whose edges are those of any part, for models that weigh the parts against each other as they go.

    Args:
        name: of the relation.
        parts: at least one `[num_nodes, num_nodes]` matrix in a sparse format of scipy; row i holds what node i
            receives. Entries that are zero are no edges.
    Returns:
        A directed relation without weights, and `[num_edges, len(parts)]`: a part's entry at every edge, 0 where it has
        none. A hop over the relation with these (or a function of them) as `edge_weight` and normalise="sum" multiplies
        by the parts.
    Raises:
        ValueError: no part, or parts of different sizes.
    """
    matrices = [scipy.sparse.csr_matrix(part) for part in parts]
    sizes = sorted({matrix.shape for matrix in matrices})
    if len(sizes) != 1:
        raise ValueError(f"parts must be matrices of one size and at least one, but have the sizes {sizes}")
    pattern: Any = None
    for matrix in matrices:
        matrix.eliminate_zeros()
        edges = matrix.astype(bool)
        pattern = edges if pattern is None else pattern + edges
    relation = relation_from_matrix(name, pattern, first_node=0, num_nodes=sizes[0][0], symmetric=False, weighted=False)
    values = np.zeros((relation.num_edges, len(matrices)), dtype=np.float32)
    for place, matrix in enumerate(matrices):
        entries = matrix.tocoo()
        edges = relation.edge_ids(entries.col.astype(np.int64), entries.row.astype(np.int64))
        values[edges, place] = entries.data
    return relation, values
