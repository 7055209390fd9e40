"""No message passing: matrix factorisation."""

from torch import Tensor, nn

from braidrec.graph.hop import Neighbourhood
from braidrec.models.encoders.contract import PLAIN, PropagationView


class IdentityEncoder(nn.Module):
    """A node is represented by its own input row."""

    layers = 0
    stackable = True
    linear = True

    def width(self, dim: int) -> int:
        """As many columns as come in."""
        return dim

    def encode(self, neighbourhood: Neighbourhood, h: Tensor, view: PropagationView = PLAIN) -> tuple[Tensor, Tensor]:
        """The input rows of the seeds; a view is applied to them, for there is no hop."""
        rows = neighbourhood.at_seeds(h, 0)
        return view.perturbed(rows), rows
