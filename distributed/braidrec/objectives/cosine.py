"""Vectors of length one."""

import torch
from torch import Tensor

SMALLEST_NORM = 1e-12
"""Shorter vectors have no direction. The square is still a normal number in fp32."""


def unit_rows(vectors: Tensor) -> Tensor:
    """`x / ‖x‖₂` over the last dimension. A vector of zeros stays, and gets no gradient.

    A division by max(‖x‖, ε), as torch's own, gives such vectors a gradient of the order 1/ε: one item without a
    feature would move the parameters by more than all others.
    """
    squared = vectors.square().sum(-1, keepdim=True)
    directed = squared > SMALLEST_NORM**2
    # The inner `where` keeps the infinite derivative at 0 out of the graph, the outer one the vector.
    inverse = torch.where(directed, torch.where(directed, squared, 1.0).rsqrt(), 0.0)
    return vectors * inverse


def directions(vectors: Tensor) -> Tensor:
    """`x / ‖x‖₂` over the last dimension of vectors however short: of anything but zeros, which stay. For numbers that
    nothing is differentiated through, such as gradients, which a batch's mean makes tiny."""
    largest = vectors.abs().amax(-1, keepdim=True)
    # To a size at which squares are normal numbers.
    scaled = torch.where(largest > 0, vectors / largest.clamp(min=torch.finfo(vectors.dtype).tiny), 0.0)
    return unit_rows(scaled)


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the angle between vectors of the last dimension, 0 where one of them is zero."""
    return (unit_rows(first) * unit_rows(second)).sum(-1)
