"""GraphSAGE and GAT, by DGL's own layers on the hops' blocks."""

from typing import Any, Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from braidrec.graph.dgl_import import dgl
from braidrec.graph.hop import Hop, Neighbourhood
from braidrec.graph.propagate import Readout, combine_levels
from braidrec.models.encoders.contract import PLAIN, PropagationView
from braidrec.models.encoders.levels import levels_at_seeds

DGLLayer = Literal["graphsage", "gat"]


class DGLEncoder(nn.Module):
    """L layers of DGL's SAGEConv (Hamilton, Ying & Leskovec, NeurIPS 2017) or GATConv (Veličković et al., ICLR 2018).

    GraphSAGE: `σ(W_s h_v + W_n mean_{u ∈ N(v)} h_u)`. GAT: `σ(Σ_{u ∈ N(v)} α_uv W h_u)`, α a softmax over v's
    neighbours of an attention of both ends, averaged over heads; v itself takes part through a residual. The last layer
    has no activation. On a sampled neighbourhood the mean, and the attention, are those of the sample. Weights of the
    edges, the relation's and a view's, multiply the messages within the mean, or the attention.

    Args:
        kind: which of the two.
        dim: size of every layer.
        layers: L.
        heads: attention heads of GAT.
        readout: how the levels are combined.
        dropout: share of the input entries of a layer that are zeroed while training.
    """

    stackable = False
    linear = False

    def __init__(
        self, *, kind: DGLLayer, dim: int, layers: int, heads: int = 1, readout: Readout = "last", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.kind, self.layers, self.readout = kind, layers, readout
        self.convolutions = nn.ModuleList(_layer(kind, dim, heads, dropout) for _ in range(layers))

    def width(self, dim: int) -> int:
        """`dim`, or (L + 1) times that where levels are concatenated."""
        return dim * (self.layers + 1) if self.readout == "concat" else dim

    def encode(self, neighbourhood: Neighbourhood, h: Tensor, view: PropagationView = PLAIN) -> tuple[Tensor, Tensor]:
        """Readout and level 0 at the seeds."""

        def step(layer: int, hop: Hop, z: Tensor) -> Tensor:
            out = self._convolve(layer, hop, z, _edge_weights(hop, view.weights(hop, z), like=z))
            return view.perturbed(out if layer == self.layers - 1 else F.leaky_relu(out, 0.2))

        ego = neighbourhood.at_seeds(h, 0)
        return combine_levels([ego, *levels_at_seeds(neighbourhood, h, step)], self.readout), ego

    def _convolve(self, layer: int, hop: Hop, z: Tensor, edge_weight: Tensor | None) -> Tensor:
        out: Tensor = self.convolutions[layer](hop.block, (hop.sources(z), hop.own(z)), edge_weight=edge_weight)
        return out.mean(1) if self.kind == "gat" else out


def _edge_weights(hop: Hop, of_view: Tensor | None, *, like: Tensor) -> Tensor | None:
    """The relation's own weights, which a block leaves to the layer, times those of a view."""
    own = hop.structure.weight
    if own is None:
        return of_view
    return own.to(like.dtype) if of_view is None else own.to(of_view.dtype) * of_view


def _layer(kind: DGLLayer, dim: int, heads: int, dropout: float) -> Any:
    if kind == "graphsage":
        return dgl.nn.pytorch.SAGEConv(dim, dim, "mean", feat_drop=dropout)
    return dgl.nn.pytorch.GATConv(dim, dim, heads, feat_drop=dropout, residual=True, allow_zero_in_degree=True)
