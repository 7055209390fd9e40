"""Prediction of a relation's edges."""

from torch import Tensor

from braidrec.objectives.cross_entropy import binary_cross_entropy
from braidrec.objectives.scores import inner_products


class EdgePrediction:
    """`−log σ⟨z_s, z_t⟩ − mean_j log(1 − σ⟨z_s, z_j⟩)` for an edge (s, t) and non-edges (s, j).

    The decoder of the graph auto-encoder (Kipf & Welling, 2016), on edges of any relation: also-viewed items, content
    neighbours, users with common items.
    """

    def rows(self, vectors: Tensor, source: Tensor, target: Tensor, others: Tensor) -> Tensor:
        """Loss of every edge.

        Args:
            vectors: `[n, d]` of the nodes that the edges touch.
            source, target: `[E]` int64 positions among them.
            others: `[E, k]` int64 positions of nodes to which the source has no edge, k ≥ 1.
        Returns:
            `[E]`.
        """
        return binary_cross_entropy(*inner_products(vectors[source], vectors[target], vectors[others]))
