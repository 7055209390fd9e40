"""What a self-supervised task is to a composed model."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from braidrec.models.contract import Encoded, Inputs, LossTerm, StepContext
from braidrec.models.encoders.contract import PropagationView


class Represents(Protocol):
    """What a task may ask of the model."""

    def view_of(self, encoded: Encoded, inputs: Inputs, branch: str | None, view: PropagationView) -> Tensor:
        """The vectors of `encoded` as another propagation gives them: over a branch (None: the model's own), perturbed
        by `view`."""
        ...

    def strand_of_items(self, name: str, inputs: Inputs, items: Tensor) -> tuple[Tensor, Tensor]:
        """`[n, dim]` rows of a strand for some items, and their presence."""
        ...

    def project(self, modality: str, features: Tensor) -> Tensor:
        """`[n, dim]` from `[n, F]` features of a modality."""
        ...


class Task(Protocol):
    """A self-supervised summand of the loss, or several.

    Attributes:
        parts: suffixes of the names of its loss terms: ("",) for one, ("/users", "/items") for one a side.
        propagates_anew: whether it asks the model for `view_of`.
    """

    parts: tuple[str, ...]

    @property
    def propagates_anew(self) -> bool: ...

    def views(self, layers: int) -> Mapping[str, tuple[str, ...]]:
        """Branches that only this task looks at: name → relations, `layers` of them."""
        ...

    def terms(self, model: Represents, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        """The losses of this step, by part.

        Args:
            encoded: what the objective was computed from.
        """
        ...
