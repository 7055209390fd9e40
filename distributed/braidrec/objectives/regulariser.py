"""The one L2 regulariser of all models."""

from torch import Tensor


def half_squared_norm(users: Tensor, items: Tensor, negatives: Tensor | None) -> Tensor:
    """`½ (‖e_u‖² + ‖e_i‖² + Σ_j ‖e_j‖²)` of every row, over the batch's *ego* embeddings.

    Divided by the number of rows and times λ it is LightGCN's published regulariser (He et al., SIGIR 2020).

    Args:
        users, items: `[B, d]`.
        negatives: `[B, n, d]` or None.
    Returns:
        `[B]`.
    """
    total = users.square().sum(-1) + items.square().sum(-1)
    if negatives is not None:
        total = total + negatives.square().sum((-2, -1))
    return 0.5 * total
