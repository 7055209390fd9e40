"""LightGCN's propagation."""

import torch
from torch import Tensor, nn

from braidrec.graph.hop import Neighbourhood
from braidrec.graph.propagate import Readout, combine_levels, propagate_to_readout
from braidrec.models.encoders.contract import PLAIN, PropagationView


class LightGCNEncoder(nn.Module):
    """`E^{(l+1)} = D^{-1/2} A D^{-1/2} E^{(l)}` and a readout over l = 0..L (He et al., SIGIR 2020).

    With noise after the hops, `E^{(l+1)} = view(D^{-1/2} A D^{-1/2} E^{(l)})`, level 0 is left out of the readout, as
    SimGCL has it (Yu et al., SIGIR 2022); but where levels are concatenated it stays, for a view is as wide as the
    vectors that it is a view of.

    Args:
        layers: L.
        readout: how the levels are combined.
        dtype: number format inside the hops while training; None: that of the rows.
    """

    stackable = True

    def __init__(self, *, layers: int, readout: Readout = "mean", dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.layers, self.readout, self.dtype = layers, readout, dtype

    def width(self, dim: int) -> int:
        """`dim`, or (L + 1) times that where levels are concatenated."""
        return dim * (self.layers + 1) if self.readout == "concat" else dim

    def encode(self, neighbourhood: Neighbourhood, h: Tensor, view: PropagationView = PLAIN) -> tuple[Tensor, Tensor]:
        """Readout and level 0 at the seeds."""
        dtype = self.dtype if self.training else None
        if view is PLAIN:
            return propagate_to_readout(neighbourhood, h, self.readout, dtype=dtype)
        ego = neighbourhood.at_seeds(h, 0)
        levels, z = ([] if view.after_hop and self.readout != "concat" else [ego]), h
        for level, hop in enumerate(neighbourhood.hops, start=1):
            weights = view.weights(hop, z)
            inside = z if dtype is None else z.to(dtype)
            z = view.perturbed(hop.aggregate(inside, None if weights is None else weights.to(inside.dtype)).to(h.dtype))
            levels.append(neighbourhood.at_seeds(z, level))
        return combine_levels(levels, self.readout), ego
