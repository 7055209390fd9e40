"""Sparse matrix ↔ relation."""

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from braidrec.graph.relation import Relation


def relation_from_matrix(
    name: str,
    matrix: Any,
    *,
    first_node: int,
    num_nodes: int,
    symmetric: bool,
    weighted: bool,
    weights_are_final: bool = False,
) -> Relation:
    """The relation whose in-neighbours of a node are the entries of its row; entries that are zero are no edges.

    Args:
        matrix: square, in a sparse format of scipy; row and column 0 are node `first_node`.
        num_nodes: of the joint space; those beside the matrix have no edges.
        weighted: the entries become edge weights (fp32), otherwise they mean nothing.
    """
    rows = scipy.sparse.csr_matrix(matrix)
    rows.eliminate_zeros()
    rows.sort_indices()
    dtype = np.int32 if max(num_nodes, rows.nnz) < np.iinfo(np.int32).max else np.int64
    indptr = np.full(num_nodes + 1, rows.nnz, dtype=dtype)
    indptr[:first_node] = 0
    indptr[first_node : first_node + rows.shape[0] + 1] = rows.indptr
    return Relation(
        name,
        indptr,
        rows.indices.astype(dtype) + dtype(first_node),
        symmetric=symmetric,
        weight=rows.data.astype(np.float32) if weighted else None,
        weights_are_final=weights_are_final,
    )


def matrix_from_relation(relation: Relation) -> Any:
    """`[num_nodes, num_nodes]` fp64 CSR by which a hop with normalise="symmetric" multiplies."""
    values = np.ones(relation.num_edges) if relation.weight is None else relation.weight.astype(np.float64)
    shape = (relation.num_nodes, relation.num_nodes)
    matrix = scipy.sparse.csr_matrix((values, relation.indices, relation.indptr), shape=shape)
    if relation.weights_are_final:
        return matrix
    in_degree, out_degree = (np.asarray(matrix.sum(axis=axis)).ravel() for axis in (1, 0))
    return normalised_matrix(matrix, in_degree, out_degree)


def normalised_matrix(matrix: Any, row_degree: NDArray[np.float64], column_degree: NDArray[np.float64]) -> Any:
    """CSR with entry (i, j) divided by `√(row_degree_i · column_degree_j)`; symmetric to the last bit if the matrix and
    the degrees are."""
    left, right = (
        np.divide(1.0, np.sqrt(degree), out=np.zeros_like(degree), where=degree > 0)
        for degree in (row_degree, column_degree)
    )
    scale = np.repeat(left, np.diff(matrix.indptr)) * right[matrix.indices]
    return scipy.sparse.csr_matrix((matrix.data * scale, matrix.indices, matrix.indptr), shape=matrix.shape)
