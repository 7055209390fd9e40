"""Vectors of items that nothing reaches over the graph, brought to the length of the others."""

import torch
from torch import Tensor


def with_cold_length(vectors: Tensor, cold: Tensor, num_users: int) -> Tensor:
    """`[num_nodes, D]` with the cold items' rows stretched by one factor to the mean length of the others."""
    stretch = stretch_of_items(vectors[num_users:].norm(dim=1), cold)
    if stretch is None:
        return vectors
    return torch.cat([vectors[:num_users], vectors[num_users:] * stretch.unsqueeze(-1)])


def stretch_of_items(length: Tensor, cold: Tensor) -> Tensor | None:
    """`[num_items]` the factor of every item, from its length; None where there is nothing to bring together."""
    if not cold.any() or cold.all():
        return None
    factor = length[~cold].mean() / length[cold].mean().clamp(min=1e-12)
    return torch.where(cold, factor, torch.ones_like(factor))
