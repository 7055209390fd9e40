"""The models' formulas once more, over dense numpy matrices and without automatic differentiation."""

import numpy as np

NUM_USERS, NUM_ITEMS = 5, 7
NUM_NODES = NUM_USERS + NUM_ITEMS
USERS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 4])
"""User 3 has no interaction, and item 6 neither: isolated nodes."""
ITEMS = np.array([0, 1, 2, 1, 3, 0, 3, 4, 5, 5])


def propagation_matrix() -> np.ndarray:
    """`D^{-1/2} A D^{-1/2}`, `[nodes, nodes]`, rows and columns of isolated nodes zero."""
    adjacency = np.zeros((NUM_NODES, NUM_NODES))
    adjacency[USERS, NUM_USERS + ITEMS] = 1.0
    adjacency += adjacency.T
    degree = adjacency.sum(1)
    inverse_root = np.divide(1.0, np.sqrt(degree), out=np.zeros(NUM_NODES), where=degree > 0)
    return inverse_root[:, None] * adjacency * inverse_root[None, :]


def layer_matrices(layers: int) -> list[np.ndarray]:
    """`P⁰ … P^L`: what takes the embeddings to each layer."""
    return [np.linalg.matrix_power(propagation_matrix(), layer) for layer in range(layers + 1)]


def lightgcn_vectors(embeddings: np.ndarray, layers: int, readout: str) -> np.ndarray:
    """`[nodes, D]` final vectors."""
    levels = [matrix @ embeddings for matrix in layer_matrices(layers)]
    if readout == "last":
        return levels[-1]
    if readout == "concat":
        return np.concatenate(levels, axis=1)
    return sum(levels) / (len(levels) if readout == "mean" else 1)


def lightgcn_gradient(upstream: np.ndarray, layers: int, readout: str) -> np.ndarray:
    """d ⟨upstream, vectors⟩ / d embeddings: every layer is linear, so its transpose carries the gradient back."""
    matrices = layer_matrices(layers)
    if readout == "last":
        return matrices[-1].T @ upstream
    if readout == "concat":
        parts = np.split(upstream, len(matrices), axis=1)
        return sum(matrix.T @ part for matrix, part in zip(matrices, parts, strict=True))
    return sum(matrix.T @ upstream for matrix in matrices) / (len(matrices) if readout == "mean" else 1)
