"""Squared error on real ratings."""

import math

from torch import Tensor

from braidrec.models.contract import Batch
from braidrec.objectives.contract import LossFacts


class RatingMSE(LossFacts):
    """`(r_ui − μ − ⟨u, i⟩)²` with μ the mean train rating (Koren, Bell & Volinsky, Computer 42(8), 2009); or, between
    the lowest rating a and the highest b, `(r_ui − a − (b − a) σ(s₀ + ⟨u, i⟩))²` with s₀ such that σ(s₀) stands for μ.

    Args:
        mean: μ, in the unit of the ratings. Predictions are `μ + ⟨u, i⟩`.
        bounds: a and b; then predictions lie between them.
    """

    needs_negatives = False
    needs_rating = True

    def __init__(self, *, mean: float, bounds: tuple[float, float] | None = None) -> None:
        self.score_offset = mean
        self.rating_bounds = bounds
        if bounds is not None:
            low, high = bounds
            if not low < mean < high:
                raise ValueError(f"bounds={bounds} must lie around the mean rating, {mean}, on both sides")
            self.score_offset = math.log((mean - low) / (high - mean))

    def rows(self, users: Tensor, items: Tensor, negatives: Tensor | None, batch: Batch) -> Tensor:
        """Loss of every row: `[B]`, from `[B, D]` vectors and the batch's ratings."""
        assert batch.rating is not None
        scores = (users * items).sum(-1) + self.score_offset
        if self.rating_bounds is not None:
            low, high = self.rating_bounds
            scores = low + (high - low) * scores.sigmoid()
        return (scores - batch.rating).square()
