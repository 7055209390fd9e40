"""LATTICE."""

from collections.abc import Mapping

import torch
from torch import nn

from braidrec.graph.knn import Method
from braidrec.graph.propagate import propagate_to_readout
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.models.contract import Branch, Encoded, FetchFeatures, Inputs, TableSpec, WithoutTerms
from braidrec.models.learned_item_graph import LEARNED, LearnedItemGraph
from braidrec.objectives.cosine import unit_rows


class Lattice(WithoutTerms, nn.Module):
    """Item–item graphs learned from projected features (Zhang et al., LATTICE, ACM Multimedia 2021).

        v_u = mean_l (Â^l E)_u,    v_i = mean_l (Â^l E)_i + n_i / ‖n_i‖,    n = S^{L_i} E_I

    S is the graph of `LearnedItemGraph`, Â the normalised interactions. Features shape the graph alone; what is
    propagated are ID embeddings.

    Deviations from the published program, which lets a gradient through the graph in the first step of an epoch alone,
    through D_m as well, and normalises the weighted sum of the A^m where the paper normalises each: features are not
    trained, an item is not its own neighbour, Â has no self-connections, and the regulariser shrinks embeddings instead
    of final vectors.

    Args:
        dim: size of an embedding.
        initial_std: embeddings start as N(0, std²).
        dims: numbers per feature vector, by modality.
        neighbours: k.
        layers: hops on the user–item graph.
        item_layers: L_i, hops on the item–item graph.
        frozen_share: λ.
        feature_dim: columns of h.
        method: how neighbours are found, see `content_neighbours`.
        dtype: number format inside the hops while training, None: that of the embeddings.
    Raises:
        ValueError: no modality, fewer than one neighbour or hop on the item–item graph, or a share outside [0, 1].
    """

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        dims: Mapping[str, int],
        neighbours: int = 10,
        layers: int = 2,
        item_layers: int = 1,
        frozen_share: float = 0.9,
        feature_dim: int = 64,
        method: Method = "auto",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if item_layers < 1:
            raise ValueError(f"item_layers={item_layers} must be at least 1")
        self.spec = TableSpec(width=dim, std=initial_std)
        self.layers, self.item_layers, self.dtype = layers, item_layers, dtype
        self.graph = LearnedItemGraph(
            dims=dims, neighbours=neighbours, frozen_share=frozen_share, feature_dim=feature_dim, method=method
        )

    def tables(self) -> Mapping[str, TableSpec]:
        return {"id": self.spec}

    def branches(self) -> Mapping[str, Branch]:
        return {
            "interactions": Branch(chain=(INTERACTIONS,) * self.layers),
            "items": Branch(chain=(LEARNED,) * self.item_layers),
        }

    def learned_relations(
        self, features: FetchFeatures, relations: Mapping[str, Relation], *, num_users: int
    ) -> Mapping[str, Relation]:
        """As `LearnedItemGraph.learned_relations`."""
        return self.graph.learned_relations(features, relations, num_users=num_users)

    def encode(self, inputs: Inputs) -> Encoded:
        dtype = self.dtype if self.training else None
        neighbourhood, items = inputs.neighbourhoods["interactions"], inputs.neighbourhoods["items"]
        rows = inputs.table("id", neighbourhood.input_nodes)
        vectors, ego = propagate_to_readout(neighbourhood, rows, "mean", dtype=dtype)
        added = self.graph.propagate(inputs, items, inputs.table("id", items.input_nodes), dtype)
        # Users have no edges in the item–item graph: their rows are zero, also as unit vectors.
        return Encoded(vectors=vectors + unit_rows(added), ego=ego)
