"""Squared error on real ratings."""

from torch import Tensor

from braidrec.models.contract import Batch
from braidrec.objectives.contract import LossFacts


class RatingMSE(LossFacts):
    """`(r_ui − μ − ⟨u, i⟩)²` with μ the mean train rating (Koren, Bell & Volinsky, Computer 42(8), 2009).

    Args:
        mean: μ, in the unit of the ratings. Predictions are `μ + ⟨u, i⟩`.
    """

    needs_negatives = False
    needs_rating = True

    def __init__(self, *, mean: float) -> None:
        self.score_offset = mean

    def rows(self, users: Tensor, items: Tensor, negatives: Tensor | None, batch: Batch) -> Tensor:
        """Loss of every row: `[B]`, from `[B, D]` vectors and the batch's ratings."""
        assert batch.rating is not None
        return ((users * items).sum(-1) + self.score_offset - batch.rating).square()
