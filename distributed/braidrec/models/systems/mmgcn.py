"""MMGCN."""

from collections.abc import Mapping
from functools import reduce
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from braidrec.graph.hop import Hop, Neighbourhood
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.contract import Branch, Encoded, Inputs, TableSpec, WithoutTerms
from braidrec.models.projectors import Projector
from braidrec.models.systems.modality_rows import ModalityRows
from braidrec.objectives.cosine import unit_rows

Combination = Literal["elementwise", "concatenation"]


class MMGCN(WithoutTerms, nn.Module):
    """A graph convolution with weights in each modality, averaged (Wei et al., MMGCN, ACM Multimedia 2019).

    In modality m a user starts as a learned preference and an item as its (mapped) feature, both of length 1:
    `x_u = p_u^m / ‖p_u^m‖`, `x_i = (W_0 f_i^m + b_0) / ‖…‖`. A layer aggregates and combines, users and items alike,

        h_v = LeakyReLU(mean_{w ∈ N(v)} W_1 x_w),    x̂_v = LeakyReLU(W_2 x_v + b_2) + e_v,
        x'_v = LeakyReLU(W_3 h_v + b_3 + x̂_v)     or, by concatenation,     LeakyReLU(W_3 [h_v ‖ x̂_v] + b_3)

    with the node's ID embedding e, the same in all modalities and layers. The vector of a node is the mean of the
    modalities' last layers; the paper adds them up.

    Preferences and ID embeddings are trained, as the paper says: the published program creates them outside the
    optimiser's reach. Features of up to `content_dim` numbers are not mapped (there is no W_0), as in that program.
    The regulariser sees ID embeddings and preferences.

    Args:
        dim: size of an ID embedding and of all layers' outputs.
        initial_std: ID embeddings and preferences start as N(0, std²).
        dims: numbers per feature vector, by modality.
        layers: how many.
        content_dim: wider features are mapped to so many numbers. A preference has as many as the item's row.
        combination: "elementwise" or "concatenation".
        dtype: number format of the aggregation while training, None: that of the embeddings.
    Raises:
        ValueError: no modality, or no layer.
    """

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        dims: Mapping[str, int],
        layers: int = 2,
        content_dim: int = 256,
        combination: Combination = "elementwise",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers={layers} must be at least 1")
        widths = {name: content_dim if size > content_dim else None for name, size in dims.items()}
        self.content = ModalityRows(dims, widths, initial_std=initial_std)
        self.layers, self.dtype = layers, dtype
        self.convolutions = nn.ModuleList(
            nn.ModuleList(
                MMGCNLayer(self.content.widths[name] if place == 0 else dim, dim, combination)
                for place in range(layers)
            )
            for name in self.content.modalities
        )
        self.ids = TableSpec(width=dim, std=initial_std)
        self.preferences = TableSpec(width=sum(self.content.widths.values()), std=initial_std, side="users")

    def tables(self) -> Mapping[str, TableSpec]:
        return {"id": self.ids, "preference": self.preferences}

    def branches(self) -> Mapping[str, Branch]:
        return {"graph": Branch(chain=(INTERACTIONS,) * self.layers)}

    def encode(self, inputs: Inputs) -> Encoded:
        neighbourhood = inputs.neighbourhoods["graph"]
        nodes = neighbourhood.input_nodes
        sides = inputs.sides(nodes)
        ids, preferences = inputs.table("id", nodes), inputs.table("preference", sides.users)
        by_modality = torch.split(preferences, list(self.content.widths.values()), dim=-1)
        dtype = self.dtype if self.training else None
        modalities = zip(self.content.modalities, by_modality, self.convolutions, strict=True)
        outputs = []
        for name, preference, layers in modalities:
            rows = self.content(name, *inputs.features(name, sides.items))
            start = unit_rows(sides.join(preference, rows))
            assert isinstance(layers, nn.ModuleList)
            outputs.append(_convolve(neighbourhood, layers, start, ids, dtype))
        vectors = reduce(torch.add, outputs) / len(outputs)
        nothing = preferences.new_zeros(sides.num_rows - len(preferences), preferences.shape[1])
        ego = torch.cat([ids, sides.join(preferences, nothing)], dim=-1)
        return Encoded(vectors=vectors, ego=neighbourhood.at_seeds(ego, 0))


class MMGCNLayer(nn.Module):
    """An aggregation and a combination of one modality.

    Args:
        in_dim: columns of its input.
        out_dim: of its output, and of the ID embeddings.
        combination: "elementwise" or "concatenation".
    """

    def __init__(self, in_dim: int, out_dim: int, combination: Combination) -> None:
        super().__init__()
        self.concatenates = combination == "concatenation"
        self.message = Projector(in_dim, in_dim, bias=False)
        self.own = Projector(in_dim, out_dim)
        self.received = Projector(in_dim + out_dim if self.concatenates else in_dim, out_dim)

    def forward(self, hop: Hop, x: Tensor, ids: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """`[num_dst, out_dim]` from `[num_src, in_dim]` and the destinations' `ids`; means are taken in `dtype`."""
        mean = hop.aggregate(x.to(dtype or x.dtype), normalise="mean").to(x.dtype)
        # W_1 after the mean, which is the same: there are fewer destinations than sources.
        h = leaky_relu(self.message(mean))
        own = leaky_relu(self.own(hop.own(x))) + ids
        if self.concatenates:
            return leaky_relu(self.received(torch.cat([h, own], dim=-1)))
        return leaky_relu(self.received(h) + own)


def _convolve(
    neighbourhood: Neighbourhood, layers: nn.ModuleList, x: Tensor, ids: Tensor, dtype: torch.dtype | None
) -> Tensor:
    """`[num_seeds, dim]` the last layer at the seeds, from the rows of level 0."""
    for hop, layer in zip(neighbourhood.hops, layers, strict=True):
        ids = hop.own(ids)
        x = layer(hop, x, ids, dtype)
    return neighbourhood.at_seeds(x, len(neighbourhood.hops))
