"""Binary cross-entropy."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from braidrec.models.contract import Batch
from braidrec.objectives.contract import LossFacts
from braidrec.objectives.scores import inner_products


def binary_cross_entropy(positive: Tensor, negative: Tensor) -> Tensor:
    """`−log σ(p) − mean_j log(1 − σ(q_j))` of every row: `[B]` from logits `[B]` and `[B, n]`."""
    return F.softplus(-positive) + F.softplus(negative).mean(-1)


class CrossEntropy(LossFacts):
    """`−log σ(r̂_ui) − mean_j log(1 − σ(r̂_uj))` over a row's negatives j (He et al., WWW 2017)."""

    def rows(self, users: Tensor, items: Tensor, negatives: Tensor | None, batch: Batch) -> Tensor:
        """Loss of every row: `[B]`, from `[B, D]` vectors and `[B, n, D]` vectors of the negatives."""
        assert negatives is not None
        return binary_cross_entropy(*inner_products(users, items, negatives))
