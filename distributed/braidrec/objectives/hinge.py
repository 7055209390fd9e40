"""Hinge loss on pairs."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from braidrec.models.contract import Batch
from braidrec.objectives.arguments import above_zero
from braidrec.objectives.contract import LossFacts


class PairwiseHinge(LossFacts):
    """`max(0, margin − (r̂_ui − r̂_uj))`, the mean over a row's negatives j (Weston, Bengio & Usunier, IJCAI 2011).

    Their WARP loss without its rank weights.

    Args:
        margin: by how much the positive's score has to lead, in the unit of scores.
    Raises:
        ValueError: `margin` is not above 0.
    """

    def __init__(self, *, margin: float) -> None:
        self.margin = above_zero("margin", margin)

    def rows(self, users: Tensor, items: Tensor, negatives: Tensor | None, batch: Batch) -> Tensor:
        """Loss of every row: `[B]`, from `[B, D]` vectors and `[B, n, D]` vectors of the negatives."""
        assert negatives is not None
        # ⟨u, j⟩ − ⟨u, i⟩ = ⟨u, j − i⟩: one product instead of two.
        difference = (users.unsqueeze(1) * (negatives - items.unsqueeze(1))).sum(-1)
        return F.relu(self.margin + difference).mean(-1)
