"""Prediction of hidden features: within a modality, or from other strands."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from braidrec.models.contract import Encoded, Inputs, LossTerm, StepContext
from braidrec.models.projectors import Projector
from braidrec.models.tasks.contract import Represents
from braidrec.models.tasks.targets import rows_of_side
from braidrec.models.views.feature_dropout import FeatureDropout


class ReconstructionLoss(Protocol):
    """What a reconstruction is judged by."""

    def rows(self, predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
        """`[n]` from `[n, F]` predicted and true features, looking at the hidden ones only."""
        ...


class Reconstruct(nn.Module):
    """`coefficient · mean_i loss(decoder(…), x_i^m)` over the distinct positive items of the batch with modality m.

    Without `sources`, entries of `x_i^m` are hidden, what is left is projected as always, and the decoder predicts what
    was hidden (masked features, as GraphMAE; Hou et al., KDD 2022). With `sources`, all of `x_i^m` is predicted from
    other strands of the item.

    Args:
        modality: m.
        features: F.
        dim: d, columns of a strand.
        sources: strands to predict from.
        rate: share of the entries that are hidden; without `sources` only.
        loss: on what was hidden.
        coefficient: weight of the task.
    """

    parts: tuple[str, ...] = ("",)
    propagates_anew = False

    def __init__(
        self,
        *,
        modality: str,
        features: int,
        dim: int,
        sources: tuple[str, ...],
        rate: float,
        loss: ReconstructionLoss,
        coefficient: float,
    ) -> None:
        super().__init__()
        self.modality, self.sources, self.loss, self.coefficient = modality, sources, loss, coefficient
        self.hide = None if sources else FeatureDropout(rate=rate)
        self.decoder = Projector(dim * max(1, len(sources)), features, depth=2, hidden=dim)

    def views(self, layers: int) -> Mapping[str, tuple[str, ...]]:
        """None."""
        return {}

    def terms(self, model: Represents, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        """One."""
        assert inputs.seeds is not None
        rows = rows_of_side("items", inputs, step)
        items = inputs.seeds[rows] - inputs.num_users
        target, present = inputs.features(self.modality, items)
        weight = step.seed_weight[rows].to(encoded.vectors.dtype) * present
        if self.hide is None:
            strands = [model.strand_of_items(name, inputs, items) for name in self.sources]
            for _, has in strands:
                weight = weight * has
            given = torch.cat([values for values, _ in strands], dim=-1)
            hidden = torch.ones_like(present).unsqueeze(-1)
        else:
            hidden = self.hide.dropped(target)
            weight = weight * hidden.any(-1)
            given = model.project(self.modality, self.hide.without(target, hidden))
        values = self.loss.rows(self.decoder(given), target, hidden)
        term = LossTerm(total=(values * weight).sum(), weight=weight.sum(), coefficient=self.coefficient)
        return {"": term}
