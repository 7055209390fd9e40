"""Two representations of an item as each other's views: modality against modality, ID or the final vector."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from braidrec.models.contract import Encoded, Inputs, LossTerm, StepContext
from braidrec.models.tasks.contract import Represents
from braidrec.models.tasks.losses import HeldLoss
from braidrec.models.tasks.targets import rows_of_side
from braidrec.objectives.self_supervised.contract import ViewLoss

FUSED = "fused"


class Align(nn.Module):
    """`coefficient · mean_i loss(a_i, b_i)` over the distinct positive items of the batch that have both.

    Args:
        first, second: names of strands, or "fused" for the final vector.
        loss: the objective.
        first_view, second_view: perturb the rows before they are compared; None: not.
        fused_width, dim: columns of the final vector and of a strand: where they differ and "fused" is compared, a
            linear map brings the former to the latter.
        coefficient: weight of the task.
    """

    parts: tuple[str, ...] = ("",)
    propagates_anew = False

    def __init__(
        self,
        *,
        first: str,
        second: str,
        loss: ViewLoss,
        coefficient: float,
        fused_width: int,
        dim: int,
        first_view: nn.Module | None = None,
        second_view: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.first, self.second, self.coefficient = first, second, coefficient
        self.loss = HeldLoss(loss)
        self.first_view, self.second_view = first_view, second_view
        differ = FUSED in (first, second) and fused_width != dim
        self.map = nn.Linear(fused_width, dim, bias=False) if differ else None

    def views(self, layers: int) -> Mapping[str, tuple[str, ...]]:
        """None."""
        return {}

    def terms(self, model: Represents, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        """One."""
        assert inputs.seeds is not None
        rows = rows_of_side("items", inputs, step)
        first, has_first = self._rows_of(self.first, model, encoded, inputs, rows)
        second, has_second = self._rows_of(self.second, model, encoded, inputs, rows)
        weight = step.seed_weight[rows].to(first.dtype) * (has_first & has_second)
        first = first if self.first_view is None else self.first_view(first)
        second = second if self.second_view is None else self.second_view(second)
        values = self.loss.rows(first, second, weight, inputs.seeds[rows])
        term = LossTerm(total=(values * weight).sum(), weight=weight.sum(), coefficient=self.coefficient)
        return {"": term}

    def _rows_of(
        self, name: str, model: Represents, encoded: Encoded, inputs: Inputs, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        if name == FUSED:
            vectors = encoded.vectors[rows]
            return (vectors if self.map is None else self.map(vectors)), torch.ones_like(rows, dtype=torch.bool)
        assert inputs.seeds is not None
        return model.strand_of_items(name, inputs, inputs.seeds[rows] - inputs.num_users)
