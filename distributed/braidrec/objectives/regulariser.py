"""The one L2 regulariser of all models."""

from torch import Tensor


def half_squared_norm(ego: Tensor, occurrences: Tensor) -> Tensor:
    """`Σ_rows ½ (‖e_u‖² + ‖e_i‖² + Σ_j ‖e_j‖²)` over the batch's *ego* embeddings, one term an occurrence.

    Divided by the number of rows and times λ it is LightGCN's published regulariser (He et al., SIGIR 2020). Written
    as a sum over the distinct nodes, it needs no copy of a row for each occurrence.

    Args:
        ego: `[n, d]` rows of the batch's distinct nodes.
        occurrences: `[n]` how often each occurs in the batch's rows, padding not counted.
    Returns:
        a scalar.
    """
    return 0.5 * (ego.square().sum(-1) * occurrences).sum()
