"""Vectors as similar as the neighbourhoods of their nodes."""

from torch import Tensor

from braidrec.objectives.cosine import unit_rows


class NeighbourhoodSimilarity:
    """How far the similarity of two vectors is from that of their nodes' neighbourhoods (a pairwise pretext task as in
    Jin et al., Self-supervised learning on graphs: deep insights and new directions, 2020).

        s_ij = |N(i) ∩ N(j)| / √(|N(i)| |N(j)|)
        loss_i = ½ mean_{j ≠ i: s_ij > 0} (cos(z_i, z_j) − s_ij)² + ½ mean_{j ≠ i: s_ij = 0} cos(z_i, z_j)²

    Pairs with common neighbours are few among many; the two means make both kinds count alike. A mean over no pair is
    zero.
    """

    def rows(self, vectors: Tensor, others: Tensor, similarity: Tensor, different: Tensor) -> Tensor:
        """Loss of every node.

        Args:
            vectors: `[n, d]` z_i.
            others: `[N, d]` z_j.
            similarity: `[n, N]` s_ij.
            different: `[n, N]` bool, whether i and j are two nodes.
        Returns:
            `[n]`.
        """
        squared = (unit_rows(vectors) @ unit_rows(others).T - similarity).square()
        common = similarity > 0
        return 0.5 * (_mean_where(squared, different & common) + _mean_where(squared, different & ~common))


def _mean_where(values: Tensor, counted: Tensor) -> Tensor:
    """`[n]` means of the counted entries of each row, 0 where there is none."""
    factor = counted.to(values.dtype)
    return (values * factor).sum(1) / factor.sum(1).clamp(min=1)
