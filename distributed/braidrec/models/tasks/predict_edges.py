"""Prediction of the batch's interactions."""

from collections.abc import Mapping

from torch import nn

from braidrec.models.contract import Encoded, Inputs, LossTerm, StepContext
from braidrec.models.tasks.contract import Represents
from braidrec.objectives.self_supervised.candidates import draw_negatives
from braidrec.objectives.self_supervised.edge_prediction import EdgePrediction


class PredictEdges(nn.Module):
    """`coefficient · mean` over the batch's interactions (u, i) of `−log σ⟨z_u, z_i⟩ − mean_j log(1 − σ⟨z_u, z_j⟩)`.

    The j are items of the batch's other interactions, drawn at random from this rank's rows with another item than i;
    in a batch with one item only there is nothing to tell apart, and its rows do not count.

    Args:
        negatives: j for each interaction.
        coefficient: weight of the task.
    """

    parts: tuple[str, ...] = ("",)
    propagates_anew = False

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
        drawn, exists = draw_negatives(items.repeat_interleave(self.negatives), items, step.batch.real > 0)
        others = items[drawn].view(size, self.negatives)
        values = self.loss.rows(encoded.vectors, users, items, others)
        weight = step.batch.real.to(values.dtype) * exists.view(size, self.negatives)[:, 0]
        term = LossTerm(total=(values * weight).sum(), weight=weight.sum(), coefficient=self.coefficient)
        return {"": term}
