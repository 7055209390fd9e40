"""Scores of a batch's pairs."""

from torch import Tensor


def inner_products(users: Tensor, items: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """`⟨u, i⟩` of every row and `⟨u, j⟩` of its negatives: `[B]` and `[B, n]`.

    Args:
        users, items: `[B, D]`.
        negatives: `[B, n, D]`.
    """
    return (users * items).sum(-1), (users.unsqueeze(1) * negatives).sum(-1)
