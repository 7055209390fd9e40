"""Bayesian personalised ranking."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from braidrec.models.contract import Batch
from braidrec.objectives.contract import LossFacts


class BPR(LossFacts):
    """`−log σ(r̂_ui − r̂_uj)`, the mean over a row's negatives j (Rendle et al., UAI 2009)."""

    def rows(self, users: Tensor, items: Tensor, negatives: Tensor | None, batch: Batch) -> Tensor:
        """Loss of every row.

        Args:
            users, items: `[B, D]` vectors.
            negatives: `[B, n, D]` vectors.
        Returns:
            `[B]`.
        """
        assert negatives is not None
        # ⟨u, j⟩ − ⟨u, i⟩ = ⟨u, j − i⟩: one product instead of two.
        difference = (users.unsqueeze(1) * (negatives - items.unsqueeze(1))).sum(-1)
        return F.softplus(difference).mean(-1)
