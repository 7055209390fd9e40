"""LayerGCN's propagation."""

import torch
from torch import Tensor, nn

from braidrec.graph.hop import Hop, Neighbourhood
from braidrec.graph.propagate import combine_levels
from braidrec.models.encoders.contract import PLAIN, PropagationView
from braidrec.models.encoders.levels import levels_at_seeds
from braidrec.objectives.cosine import cosine


class LayerGCNEncoder(nn.Module):
    """`E^{(l+1)} = cos(Â E^{(l)}, E^{(0)}) ⊙ Â E^{(l)}`, summed over l = 1..L (Zhou et al., LayerGCN, ICDE 2023).

    The cosine is that of a node's row and its embedding: what is propagated fades where it leads away from the node, so
    that more layers do not make all nodes alike. The embeddings themselves are left out of the sum. The paper's edge
    pruning is the model's business: training then propagates over a pruned view of the interactions.

    Args:
        layers: L, 4 in the paper.
        dtype: number format inside the hops while training; None: that of the rows.
    Raises:
        ValueError: no layer.
    """

    stackable = False
    linear = False

    def __init__(self, *, layers: int = 4, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers={layers} must be at least 1: the embeddings are no part of the sum")
        self.layers, self.dtype = layers, dtype

    def width(self, dim: int) -> int:
        """`dim`."""
        return dim

    def encode(self, neighbourhood: Neighbourhood, h: Tensor, view: PropagationView = PLAIN) -> tuple[Tensor, Tensor]:
        """The sum of the layers and level 0, at the seeds."""
        inside = (self.dtype if self.training else None) or h.dtype
        embeddings = h

        def step(layer: int, hop: Hop, z: Tensor) -> Tensor:
            nonlocal embeddings
            weights = view.weights(hop, z)
            received = hop.aggregate(z.to(inside), None if weights is None else weights.to(inside)).to(h.dtype)
            embeddings = hop.own(embeddings)
            return view.perturbed(cosine(received, embeddings).unsqueeze(-1) * received)

        return combine_levels(levels_at_seeds(neighbourhood, h, step), "sum"), neighbourhood.at_seeds(h, 0)
