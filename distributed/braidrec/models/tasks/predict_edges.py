"""Prediction of the batch's interactions."""

from collections.abc import Mapping

import torch
from torch import nn

from braidrec.models.contract import Encoded, Inputs, LossTerm, StepContext
from braidrec.models.tasks.contract import Represents
from braidrec.objectives.self_supervised.edge_prediction import EdgePrediction


class PredictEdges(nn.Module):
    """`coefficient · mean` over the batch's interactions (u, i) of `−log σ⟨z_u, z_i⟩ − mean_j log(1 − σ⟨z_u, z_j⟩)`.

    The j are other interactions' items of the batch, drawn at random; should one be i itself, it is skipped by taking
    the next row's.

    Args:
        negatives: j for each interaction.
        coefficient: weight of the task.
    """

    parts: tuple[str, ...] = ("",)

    def __init__(self, *, negatives: int, coefficient: float) -> None:
        super().__init__()
        self.negatives, self.coefficient = negatives, coefficient
        self.loss = EdgePrediction()

    def views(self, layers: int) -> Mapping[str, tuple[str, ...]]:
        """None."""
        return {}

    def terms(self, model: Represents, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        """One."""
        size = step.batch.size
        users, items = step.places[:size], step.places[size : 2 * size]
        drawn = torch.randint(size, (size, self.negatives), device=items.device)
        others = items[drawn]
        same = others == items.unsqueeze(-1)
        others = torch.where(same, items[(drawn + 1) % size], others)
        values = self.loss.rows(encoded.vectors, users, items, others)
        real = step.batch.real.to(values.dtype)
        term = LossTerm(total=(values * real).sum(), weight=real.sum(), coefficient=self.coefficient)
        return {"": term}
