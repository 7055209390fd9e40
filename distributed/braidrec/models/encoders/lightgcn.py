"""LightGCN's propagation."""

import torch
from torch import Tensor, nn

from braidrec.graph.hop import Hop, Neighbourhood
from braidrec.graph.propagate import Readout, combine_levels, propagate_to_readout
from braidrec.models.encoders.contract import PLAIN, PropagationView
from braidrec.models.encoders.levels import levels_at_seeds


class LightGCNEncoder(nn.Module):
    """`E^{(l+1)} = D^{-1/2} A D^{-1/2} E^{(l)}` and a readout over l = 0..L (He et al., SIGIR 2020).

    A view may change what a hop gives, `E^{(l+1)} = view(D^{-1/2} A D^{-1/2} E^{(l)})`. Its readout is that of the
    vectors that it is a view of. SimGCL (Yu et al., SIGIR 2022) leaves level 0 out of both: it is the only level that
    noise after the hops does not reach, and the same in any two views.

    Args:
        layers: L.
        readout: how the levels are combined.
        dtype: number format inside the hops while training; None: that of the rows.
        ego: level 0 takes part in the readout.
    Raises:
        ValueError: no hops, and level 0 left out.
    """

    stackable = True
    linear = True

    def __init__(
        self, *, layers: int, readout: Readout = "mean", dtype: torch.dtype | None = None, ego: bool = True
    ) -> None:
        super().__init__()
        if not (ego or layers):
            raise ValueError("layers=0 must be at least 1 without level 0")
        self.layers, self.readout, self.dtype, self.ego = layers, readout, dtype, ego

    def width(self, dim: int) -> int:
        """`dim`, or that times the number of levels where they are concatenated."""
        return dim * (self.layers + self.ego) if self.readout == "concat" else dim

    def encode(self, neighbourhood: Neighbourhood, h: Tensor, view: PropagationView = PLAIN) -> tuple[Tensor, Tensor]:
        """Readout and level 0 at the seeds."""
        dtype = self.dtype if self.training else None
        if view is PLAIN:
            return propagate_to_readout(neighbourhood, h, self.readout, dtype=dtype, ego=self.ego)
        inside = dtype or h.dtype

        def step(layer: int, hop: Hop, z: Tensor) -> Tensor:
            weights = view.weights(hop, z)
            received = hop.aggregate(z.to(inside), None if weights is None else weights.to(inside))
            return view.perturbed(received.to(h.dtype))

        ego = neighbourhood.at_seeds(h, 0)
        levels = levels_at_seeds(neighbourhood, h, step)
        return combine_levels([ego, *levels] if self.ego else levels, self.readout), ego
