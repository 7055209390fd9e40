"""An item's modality as a row that a system works with."""

from collections.abc import Mapping

from torch import Tensor, nn

from braidrec.models.missing import MissingToken
from braidrec.models.projectors import Projector


class ModalityRows(nn.Module):
    """`W_m x_i^m + b_m`, or a perceptron of x, and a learned row of the modality for an item without it.

    Args:
        dims: F_m, numbers per feature vector, by modality.
        widths: columns of the rows, by modality; None: the features are the rows, F_m columns.
        initial_std: learned rows start as N(0, std²).
        bias: with b_m.
        hidden: units between two linear maps; None: one map.
    Attributes:
        modalities: in alphabetical order, so that the order in which they are given changes nothing.
        widths: columns of the rows, by modality.
    Raises:
        ValueError: no modality.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        widths: Mapping[str, int | None],
        *,
        initial_std: float,
        bias: bool = True,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        if not dims:
            raise ValueError("dims is empty: at least one modality with features is needed")
        self.modalities = tuple(sorted(dims))
        self.widths = {name: widths[name] or dims[name] for name in self.modalities}
        depth = 1 if hidden is None else 2
        self.projectors = nn.ModuleList(
            nn.Identity()
            if widths[name] is None
            else Projector(dims[name], self.widths[name], bias=bias, depth=depth, hidden=hidden)
            for name in self.modalities
        )
        self.missing = nn.ModuleList(
            MissingToken(self.widths[name], initial_std=initial_std) for name in self.modalities
        )

    def forward(self, modality: str, values: Tensor, present: Tensor) -> Tensor:
        """`[n, width]` from `[n, F_m]` features, anything finite where the item has none, and `[n]` bool presence."""
        place = self.modalities.index(modality)
        filled: Tensor = self.missing[place](self.projectors[place](values), present)[0]
        return filled
