"""What an encoder is to a composed model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from braidrec.graph.hop import Hop, Neighbourhood


@dataclass(frozen=True, kw_only=True)
class PropagationView:
    """A perturbed propagation.

    Attributes:
        after_hop: applied to the representations `[n, d]` after every hop, as SimGCL's noise is; None: nothing.
        edge_weight: from a hop and its source rows to a weight `[num_edges]` in the order of `hop.edges()`, by which
            the messages are multiplied; None: 1.
    """

    after_hop: Callable[[Tensor], Tensor] | None = None
    edge_weight: Callable[[Hop, Tensor], Tensor] | None = None

    def weights(self, hop: Hop, h: Tensor) -> Tensor | None:
        """Of the hop's edges."""
        return None if self.edge_weight is None else self.edge_weight(hop, h)

    def perturbed(self, h: Tensor) -> Tensor:
        """The rows after a hop."""
        return h if self.after_hop is None else self.after_hop(h)


PLAIN = PropagationView()


class Encoder(Protocol):
    """Message passing along a chain of user–item hops.

    Attributes:
        layers: number of hops.
        stackable: columns are encoded independently of each other and all alike, so that several strands can go through
            side by side, in one propagation.
        linear: what comes out is a linear function of what goes in (unless a view perturbs it), without parameters.
    """

    layers: int
    stackable: bool
    linear: bool

    def width(self, dim: int) -> int:
        """Columns that come out where `dim` go in."""
        ...

    def encode(self, neighbourhood: Neighbourhood, h: Tensor, view: PropagationView = PLAIN) -> tuple[Tensor, Tensor]:
        """`[num_seeds, width(d)]` representations and `[num_seeds, d]` level 0, from `[num_input_nodes, d]`."""
        ...
