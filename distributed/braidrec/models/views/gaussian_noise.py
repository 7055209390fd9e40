"""A view with normal noise."""

import math

import torch
from torch import Tensor, nn


class GaussianNoise(nn.Module):
    """`x + σ ε`, ε ~ N(0, 1) for every entry.

    Args:
        std: σ, in the unit of the features.
    Raises:
        ValueError: `std` is negative or not finite.
    """

    def __init__(self, *, std: float) -> None:
        super().__init__()
        if not (math.isfinite(std) and std >= 0):
            raise ValueError(f"std={std} must be a finite number of at least 0")
        self.std = std

    def forward(self, features: Tensor) -> Tensor:
        """`[n, F]` from `[n, F]`."""
        return features + self.std * torch.randn_like(features)
