"""Squared error on implicit feedback."""

from torch import Tensor

from braidrec.models.contract import Batch
from braidrec.objectives.contract import LossFacts
from braidrec.objectives.scores import inner_products


class ImplicitMSE(LossFacts):
    """`(1 − r̂_ui)² + mean_j (0 − r̂_uj)²` over a row's negatives j.

    Interactions are ratings of 1, sampled negatives ratings of 0 (Hu, Koren & Volinsky, ICDM 2008, with sampled
    instead of all zeros). The weight of a row plays the part of their confidence.
    """

    def rows(self, users: Tensor, items: Tensor, negatives: Tensor | None, batch: Batch) -> Tensor:
        """Loss of every row: `[B]`, from `[B, D]` vectors and `[B, n, D]` vectors of the negatives."""
        assert negatives is not None
        positive, negative = inner_products(users, items, negatives)
        return (1.0 - positive).square() + negative.square().mean(-1)
