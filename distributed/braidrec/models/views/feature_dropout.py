"""A view with features missing."""

from typing import Literal

import torch
from torch import Tensor, nn


class FeatureDropout(nn.Module):
    """`x ⊙ m`, the mask m being 0 with probability `rate` and 1 otherwise, independently.

    Single entries, or a row as a whole, which is an item without the modality (Neverova et al., TPAMI 38(8), 2016).

    Feature masks leave the rest as it is (Zhu et al., GRACE, 2020): the mean of an entry falls to `(1 − rate) x`. The
    latent dropout of BM3, SelfCF and SLMRec is the ordinary one, which divides by `1 − rate` and keeps the mean:
    `rescale=True`.

    Args:
        rate: probability of being left out, in [0, 1).
        unit: what is left out together: "entries" or "rows".
        rescale: divide by `1 − rate`.
    Raises:
        ValueError: `rate` is outside [0, 1).
    """

    def __init__(self, *, rate: float, unit: Literal["entries", "rows"] = "entries", rescale: bool = False) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate={rate} must be at least 0 and below 1")
        self.rate = rate
        self.unit = unit
        self.rescale = rescale

    def dropped(self, features: Tensor) -> Tensor:
        """Draw what to leave out: bool `[n, F]`, or `[n, 1]` for rows. A reconstruction loss hides the same."""
        shape = features.shape if self.unit == "entries" else (*features.shape[:-1], 1)
        return torch.rand(shape, device=features.device) < self.rate

    def without(self, features: Tensor, dropped: Tensor) -> Tensor:
        """`features` with zeros for what was drawn, rescaled where that is wanted."""
        kept = features.masked_fill(dropped, 0.0)
        return kept / (1.0 - self.rate) if self.rescale else kept

    def forward(self, features: Tensor) -> Tensor:
        """`[n, F]` from `[n, F]`."""
        return self.without(features, self.dropped(features))
