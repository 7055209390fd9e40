"""Graph convolution with weights and an activation."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from braidrec.graph.hop import Hop, Neighbourhood
from braidrec.graph.propagate import Readout, combine_levels
from braidrec.models.encoders.contract import PLAIN, PropagationView
from braidrec.models.encoders.levels import levels_at_seeds


class NGCFEncoder(nn.Module):
    """`E^{(l+1)} = LeakyReLU((Â + I) E^{(l)} W₁ + (Â E^{(l)} ⊙ E^{(l)}) W₂)` (Wang et al., NGCF, SIGIR 2019).

    Without the interaction term it is a plain graph convolution, `LeakyReLU((Â + I) E W₁)`. Both transformations have a
    bias, and messages are dropped out, as published; representations are normalised to length 1 for the readout.

    Args:
        dim: size of every layer.
        layers: number of hops.
        readout: "concat" is the published one.
        interaction: with the term `Â E ⊙ E`.
        dropout: share of the entries of a layer that are zeroed while training.
    """

    stackable = False
    linear = False

    def __init__(
        self,
        *,
        dim: int,
        layers: int,
        readout: Readout = "concat",
        interaction: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers, self.readout, self.dropout = layers, readout, dropout
        self.neighbours = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers))
        self.products = nn.ModuleList(nn.Linear(dim, dim) for _ in range(layers)) if interaction else None
        for linear in [*self.neighbours, *(self.products or [])]:
            assert isinstance(linear, nn.Linear)
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def width(self, dim: int) -> int:
        """`dim`, or (L + 1) times that where levels are concatenated."""
        return dim * (self.layers + 1) if self.readout == "concat" else dim

    def encode(self, neighbourhood: Neighbourhood, h: Tensor, view: PropagationView = PLAIN) -> tuple[Tensor, Tensor]:
        """Readout and level 0 at the seeds."""

        def step(layer: int, hop: Hop, z: Tensor) -> Tensor:
            received, own = hop.aggregate(z, view.weights(hop, z)), hop.own(z)
            total: Tensor = self.neighbours[layer](received + own)
            if self.products is not None:
                total = total + self.products[layer](received * own)
            return view.perturbed(F.dropout(F.leaky_relu(total, 0.2), self.dropout, self.training))

        ego = neighbourhood.at_seeds(h, 0)
        levels = [F.normalize(level, dim=-1) for level in levels_at_seeds(neighbourhood, h, step)]
        return combine_levels([ego, *levels], self.readout), ego
