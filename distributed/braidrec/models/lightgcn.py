"""LightGCN."""

from collections.abc import Mapping

import torch
from torch import nn

from braidrec.graph.propagate import Readout
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.contract import Branch, Encoded, Inputs, TableSpec, WithoutTerms
from braidrec.models.encoders.lightgcn import LightGCNEncoder


class LightGCN(WithoutTerms, nn.Module):
    """`E^{(l+1)} = D^{-1/2} A D^{-1/2} E^{(l)}`, then a readout over l = 0..L (He et al., SIGIR 2020).

    A is the train interactions as a bipartite graph, D its degrees. The propagation edges include those that the batch
    is trained on, as in the published protocol; the loop can exclude them in sampled mode.

    Args:
        dim: size of an embedding.
        layers: L, the number of hops.
        readout: "mean" is the published one.
        initial_std: embeddings start as N(0, std²).
        dtype: number format inside the hops while training, None: that of the embeddings. Evaluation always has the
            latter, so that a run's metrics do not depend on how it was trained.
        ego: level 0 takes part in the readout.
    """

    def __init__(
        self,
        *,
        dim: int,
        layers: int,
        readout: Readout = "mean",
        initial_std: float = 0.1,
        dtype: torch.dtype | None = None,
        ego: bool = True,
    ) -> None:
        super().__init__()
        self.spec = TableSpec(width=dim, std=initial_std)
        self.encoder = LightGCNEncoder(layers=layers, readout=readout, dtype=dtype, ego=ego)

    def tables(self) -> Mapping[str, TableSpec]:
        return {"id": self.spec}

    def branches(self) -> Mapping[str, Branch]:
        return {"id": Branch(chain=(INTERACTIONS,) * self.encoder.layers)}

    def encode(self, inputs: Inputs) -> Encoded:
        neighbourhood = inputs.neighbourhoods["id"]
        vectors, ego = self.encoder.encode(neighbourhood, inputs.table("id", neighbourhood.input_nodes))
        return Encoded(vectors=vectors, ego=ego)
