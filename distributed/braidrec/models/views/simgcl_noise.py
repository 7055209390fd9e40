"""A view with noise that stays in the orthant."""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class SimGCLNoise(nn.Module):
    """`x + Δ`, `Δ ∝ u ⊙ sign(x)`, u ~ U(0, 1) for every entry, `‖Δ‖₂ = ε` for every row (Yu et al., SIGIR 2022).

    No entry changes its sign, and Δ gets no gradient. Entries that are 0 have no sign and stay, so a row of zeros
    does.

    Args:
        norm: ε, the length of the noise.
    Raises:
        ValueError: `norm` is negative or not finite.
    """

    def __init__(self, *, norm: float) -> None:
        super().__init__()
        if not (math.isfinite(norm) and norm >= 0):
            raise ValueError(f"norm={norm} must be a finite number of at least 0")
        self.norm = norm

    def forward(self, features: Tensor) -> Tensor:
        """`[n, d]` from `[n, d]`."""
        noise = torch.rand_like(features) * features.detach().sign()
        return features + self.norm * F.normalize(noise, dim=-1)
