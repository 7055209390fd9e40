"""Hinge loss on single scores."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from braidrec.models.contract import Batch
from braidrec.objectives.contract import LossFacts
from braidrec.objectives.scores import inner_products


class PointwiseHinge(LossFacts):
    """`max(0, 1 − y r̂)` with y = 1 for the positive and −1 for negatives, whose mean is added.

    `max(0, 1 − r̂_ui) + mean_j max(0, 1 + r̂_uj)`: the hinge loss in the survey of multimodal recommenders by Xu et al.
    (2025).
    """

    def rows(self, users: Tensor, items: Tensor, negatives: Tensor | None, batch: Batch) -> Tensor:
        """Loss of every row: `[B]`, from `[B, D]` vectors and `[B, n, D]` vectors of the negatives."""
        assert negatives is not None
        positive, negative = inner_products(users, items, negatives)
        return F.relu(1.0 - positive) + F.relu(1.0 + negative).mean(-1)
