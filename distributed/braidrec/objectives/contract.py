"""What a supervised loss is to the training loop."""

from typing import Protocol

from torch import Tensor

from braidrec.models.contract import Batch


class LossFacts:
    """What most losses are: pairwise, on scores that are inner products."""

    needs_negatives: bool = True
    needs_rating: bool = False
    score_offset: float = 0.0
    ranks_by_cosine: bool = False
    rating_bounds: tuple[float, float] | None = None


class RowLoss(Protocol):
    """A loss with one value a row of the batch."""

    needs_negatives: bool
    needs_rating: bool
    score_offset: float
    """What a predicted score is above the inner product of the vectors."""
    ranks_by_cosine: bool
    """Whether items are ranked by the cosine of the vectors instead of their inner product."""
    rating_bounds: tuple[float, float] | None
    """The lowest and the highest rating, between which σ of a score lies; None: scores are ratings as they are."""

    def rows(self, users: Tensor, items: Tensor, negatives: Tensor | None, batch: Batch) -> Tensor:
        """`[B]` from `[B, D]` user and item vectors and `[B, n, D]` vectors of the negatives."""
        ...
