"""Reconstruction of features that were hidden: dimensions of one modality, or one modality from the others."""

import torch
from torch import Tensor

from braidrec.objectives.cosine import cosine


class ReconstructionMSE:
    """`mean_f (x̂_if − x_if)²` over the hidden entries f of a row."""

    def rows(self, predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
        """Loss of every row.

        Args:
            predicted: `[n, F]`.
            target: `[n, F]`; gets no gradient. Entries that are not hidden are not looked at.
            hidden: `[n, F]` bool; `[n, 1]` where a row's whole modality is.
        Returns:
            `[n]`; 0 for rows without hidden entries, which a mean should leave out.
        """
        hidden = hidden.expand_as(target)
        error = torch.where(hidden, predicted - target.detach(), 0.0)
        return error.square().sum(-1) / hidden.sum(-1).clamp(min=1)


class ReconstructionCosine:
    """`(1 − cos(x̂_i, x_i))^γ` over the hidden entries of a row: the scaled cosine error of GraphMAE.

    It asks for direction, not length, and γ > 1 lets rows that are nearly right count less (Hou et al., KDD 2022).

    Args:
        exponent: γ ≥ 1.
    Raises:
        ValueError: γ is below 1, where the slope at a perfect reconstruction is infinite.
    """

    def __init__(self, *, exponent: float) -> None:
        if not exponent >= 1:
            raise ValueError(f"exponent={exponent} must be at least 1")
        self.exponent = exponent

    def rows(self, predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
        """Loss of every row: `[n]`; arguments and rows without hidden entries as for `ReconstructionMSE`."""
        hidden = hidden.expand_as(target)
        angle = cosine(predicted.masked_fill(~hidden, 0.0), target.detach().masked_fill(~hidden, 0.0))
        # Rounding can bring the cosine above 1, and a power of a negative number is NaN.
        error = (1.0 - angle).clamp(min=0.0) ** self.exponent
        return torch.where(hidden.any(-1), error, 0.0)
