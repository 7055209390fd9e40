"""A learned weight of every edge."""

import torch
from torch import Tensor, nn

from braidrec.graph.hop import Hop
from braidrec.models.projectors import Projector


class EdgeMask(nn.Module):
    """`w_uv = σ((ω_uv + log δ − log(1 − δ)) / τ)`, δ ~ U(0, 1), `ω_uv = MLP([h_u + h_v ‖ h_u ⊙ h_v])`.

    A relaxed Bernoulli draw for every edge (Maddison, Mnih & Teh, ICLR 2017), as learned edge dropping in contrastive
    learning has it (Suresh et al., AD-GCL, NeurIPS 2021). Both directions of an edge have the same ω.

    Args:
        dim: d.
        hidden: width of the perceptron.
        temperature: τ.
    """

    def __init__(self, *, dim: int, hidden: int, temperature: float) -> None:
        super().__init__()
        self.logit = Projector(2 * dim, 1, depth=2, hidden=hidden)
        self.temperature = temperature

    def forward(self, hop: Hop, h: Tensor) -> Tensor:
        """`[num_edges]` in the order of `hop.edges()`, from the source rows `[num_src, d]`."""
        sources, destinations, _ = hop.edges()
        left, right = h[sources], hop.own(h)[destinations]
        logit = self.logit(torch.cat([left + right, left * right], dim=-1)).squeeze(-1)
        chance = torch.rand_like(logit).clamp(1e-6, 1 - 1e-6)
        weight: Tensor = ((logit + chance.logit()) / self.temperature).sigmoid()
        return weight
