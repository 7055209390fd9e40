"""Vectors of items that nothing reaches over the graph, brought to the length of the others."""

import torch
from torch import Tensor


def with_cold_length(vectors: Tensor, cold: Tensor, num_users: int) -> Tensor:
    """`[num_nodes, D]` with the cold items' rows stretched by one factor to the mean length of the others."""
    if not cold.any() or cold.all():
        return vectors
    length = vectors[num_users:].norm(dim=1)
    factor = length[~cold].mean() / length[cold].mean().clamp(min=1e-12)
    stretch = torch.where(cold, factor, torch.ones_like(factor))
    return torch.cat([vectors[:num_users], vectors[num_users:] * stretch.unsqueeze(-1)])
