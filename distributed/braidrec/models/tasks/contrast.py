"""Two perturbed views of the final vectors, brought together by an objective (SGL, SimGCL and their kin)."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from braidrec.models.contract import Encoded, Inputs, LossTerm, StepContext
from braidrec.models.encoders.contract import PLAIN, PropagationView
from braidrec.models.tasks.contract import Represents
from braidrec.models.tasks.losses import HeldLoss
from braidrec.models.tasks.targets import PARTS, Target, rows_of_side, side_of
from braidrec.objectives.self_supervised.contract import ViewLoss


class ViewOfVectors(nn.Module):
    """One view of a model's vectors.

    Args:
        relations: names of perturbed relations, one a layer (the last is repeated); (): the unperturbed graph.
        after_hop: perturbs the representations after every hop; None: not.
        edge_mask: a learned weight of every edge; None: 1.
        output: perturbs the final vectors; None: not.
    """

    def __init__(
        self,
        *,
        relations: Sequence[str] = (),
        after_hop: nn.Module | None = None,
        edge_mask: nn.Module | None = None,
        output: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.relations = tuple(relations)
        self.after_hop, self.edge_mask, self.output = after_hop, edge_mask, output

    @property
    def propagates_anew(self) -> bool:
        """Whether it takes a propagation of its own."""
        return bool(self.relations) or self.after_hop is not None or self.edge_mask is not None

    @property
    def propagation(self) -> PropagationView:
        """What is changed about the propagation."""
        if self.after_hop is None and self.edge_mask is None:
            return PLAIN
        return PropagationView(after_hop=self.after_hop, edge_weight=self.edge_mask)

    def chain(self, layers: int) -> tuple[str, ...]:
        """The relations of a chain of `layers` hops."""
        return tuple(self.relations[min(layer, len(self.relations) - 1)] for layer in range(layers))


class Contrast(nn.Module):
    """`coefficient · mean_i loss(view₁(z_i), view₂(z_i))` over the distinct users, and over the items, of the batch.

    Args:
        name: of the task; its branches are named after it.
        first, second: the views.
        loss: the objective.
        target: which nodes.
        coefficient: weight of the task.
    """

    def __init__(
        self,
        *,
        name: str,
        first: ViewOfVectors,
        second: ViewOfVectors,
        loss: ViewLoss,
        target: Target = "both",
        coefficient: float,
    ) -> None:
        super().__init__()
        self.name, self.target, self.coefficient = name, target, coefficient
        self.parts = PARTS[target]
        self.first, self.second = first, second
        self.loss = HeldLoss(loss)

    @property
    def propagates_anew(self) -> bool:
        """Whether one of the views does."""
        return self.first.propagates_anew or self.second.propagates_anew

    def views(self, layers: int) -> Mapping[str, tuple[str, ...]]:
        """A branch for each view with a perturbed graph."""
        both = {f"{self.name}.1": self.first, f"{self.name}.2": self.second}
        return {branch: view.chain(layers) for branch, view in both.items() if view.relations and layers}

    def terms(self, model: Represents, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        """Both views are propagated anew, unless they leave the propagation as it is."""
        assert inputs.seeds is not None
        first = self._vectors(f"{self.name}.1", self.first, model, encoded, inputs)
        second = self._vectors(f"{self.name}.2", self.second, model, encoded, inputs)
        found = {}
        for part in self.parts:
            rows = rows_of_side(side_of(self.target, part), inputs, step)
            weight = step.seed_weight[rows].to(first.dtype)
            values = self.loss.rows(first[rows], second[rows], weight, inputs.seeds[rows])
            found[part] = LossTerm(total=(values * weight).sum(), weight=weight.sum(), coefficient=self.coefficient)
        return found

    def _vectors(self, branch: str, view: ViewOfVectors, model: Represents, encoded: Encoded, inputs: Inputs) -> Tensor:
        vectors = encoded.vectors
        if view.propagates_anew:
            own = branch if branch in inputs.neighbourhoods else None
            vectors = model.view_of(encoded, inputs, own, view.propagation)
        perturbed: Tensor = vectors if view.output is None else view.output(vectors)
        return perturbed
