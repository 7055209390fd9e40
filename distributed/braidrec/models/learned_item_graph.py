"""A graph of the items that is learned: the neighbours that projected features give, mixed with the frozen ones."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from braidrec.graph.hop import Hop, Neighbourhood
from braidrec.graph.knn import Method, content_neighbours
from braidrec.graph.matrix import matrix_from_relation, normalised_matrix
from braidrec.graph.relation import Relation
from braidrec.graph.union import union_relation
from braidrec.models.contract import FetchFeatures, Inputs
from braidrec.models.projectors import Projector
from braidrec.objectives.cosine import unit_rows

LEARNED = "learned"
"""The item–item relation that the model gives itself."""
_ITEMS_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class _Edges:
    """What the modalities have on the edges of the learned relation, `[num_edges, M]` each.

    Attributes:
        frozen: S̃, 0 where the modality has no edge.
        scale: `1 / √(d_i d_j)` of the learned graph, 0 where the modality has no edge in it.
    """

    frozen: Tensor
    scale: Tensor


class LearnedItemGraph(nn.Module):
    """The latent item–item structure of Zhang et al. (LATTICE, ACM Multimedia 2021).

        h^m = W_m x^m + b_m,    A_ij^m = max(0, cos(h_i^m, h_j^m)) for the k items j that are most similar to item i
        S = Σ_m α_m [λ S̃^m + (1 − λ) D_m^{-1/2} A^m D_m^{-1/2}],    α = softmax(w),    D_m the row sums of A^m

    S̃^m is the frozen graph of the features themselves (relation `content/<m>`). Features shape the graph alone.

    Who trains or evaluates a model with it calls `learned_relations` at the start of every epoch, and again before
    evaluation, and propagates over what it returns. Then neighbours and D_m are found from all items, without a
    gradient. In between they stay, while the similarities on the edges (and α) are computed anew in every step and pass
    gradients to W_m and b_m. An item that lacks a modality has no edge in its graph.

    Args:
        dims: numbers per feature vector, by modality.
        neighbours: k.
        frozen_share: λ.
        feature_dim: columns of h.
        method: how neighbours are found, see `content_neighbours`.
    Raises:
        ValueError: no modality, fewer than one neighbour, or a share outside [0, 1].
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        neighbours: int = 10,
        frozen_share: float = 0.9,
        feature_dim: int = 64,
        method: Method = "auto",
    ) -> None:
        super().__init__()
        if not dims:
            raise ValueError("dims is empty: an item graph is learned from at least one modality with features")
        if neighbours < 1:
            raise ValueError(f"neighbours={neighbours} must be at least 1")
        if not 0 <= frozen_share <= 1:
            raise ValueError(f"frozen_share={frozen_share} must be within [0, 1]")
        self.neighbours, self.method, self.frozen_share = neighbours, method, frozen_share
        self.modalities = tuple(sorted(dims))
        self.projectors = nn.ModuleList(Projector(dims[name], feature_dim) for name in self.modalities)
        self.modality_logits = nn.Parameter(torch.zeros(len(self.modalities)))
        self._edges: _Edges | None = None

    @torch.no_grad()
    def learned_relations(
        self, features: FetchFeatures, relations: Mapping[str, Relation], *, num_users: int
    ) -> Mapping[str, Relation]:
        """The relations that the parameters as they stand give, to propagate over until the next call.

        A function of the parameters, the features and the frozen graphs alone: ranks that hold the same get the same.

        Args:
            features: of all items.
            relations: those that stay as they are, `content/<modality>` among them.
            num_users: nodes below are users.
        """
        frozen = [matrix_from_relation(relations[f"content/{name}"]) for name in self.modalities]
        num_items = frozen[0].shape[0] - num_users
        scales = [self._scale_of(place, features, num_users, num_items) for place in range(len(self.modalities))]
        relation, values = union_relation(LEARNED, [*frozen, *scales])
        both = torch.from_numpy(values).to(self.modality_logits.device)
        self._edges = _Edges(frozen=both[:, : len(frozen)], scale=both[:, len(frozen) :])
        return {LEARNED: relation}

    def propagate(
        self, inputs: Inputs, neighbourhood: Neighbourhood, h: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """`[num_seeds, d]`: `S^L h`, for a chain of L hops on the relation `LEARNED`.

        Args:
            h: `[num_input_nodes, d]`; users have no edges.
            dtype: number format inside the hops, None: that of `h`.
        """
        directions = self._directions(inputs, neighbourhood.input_nodes)
        z = h.to(dtype or h.dtype)
        for hop in neighbourhood.hops:
            own = [hop.own(units) for units in directions]
            sources = [hop.sources(units) for units in directions]
            z = hop.aggregate(z, self._edge_weights(hop, sources, own), normalise="sum")
            directions = own
        return neighbourhood.at_seeds(z, len(neighbourhood.hops)).to(h.dtype)

    def _directions(self, inputs: Inputs, nodes: Tensor | None) -> list[Tensor]:
        """`[n, feature_dim]` h^m at length one, for each modality; zeros at users."""
        sides = inputs.sides(nodes)
        found = []
        for name, projector in zip(self.modalities, self.projectors, strict=True):
            units = unit_rows(projector(inputs.features(name, sides.items)[0]))
            found.append(sides.join(units.new_zeros(sides.num_rows - len(units), units.shape[1]), units))
        return found

    def _edge_weights(self, hop: Hop, of_sources: list[Tensor], of_destinations: list[Tensor]) -> Tensor:
        """`[num_edges]` the entries of S."""
        sources, destinations, ids = hop.edges()
        edges = self._edges
        if edges is None or len(edges.scale) != hop.relation.num_edges:
            raise RuntimeError("the item graph is not the one that `learned_relations` returned last")
        frozen, scale = edges.frozen[ids], edges.scale[ids].to(self.modality_logits.dtype)
        shares = self.modality_logits.softmax(0)
        weights = self.frozen_share * (frozen.to(shares.dtype) @ shares)
        for place, (left, right) in enumerate(zip(of_sources, of_destinations, strict=True)):
            # A modality has few of the edges: products are made for these alone.
            there = scale[:, place].nonzero().squeeze(-1)
            cosine = (left[sources[there]] * right[destinations[there]]).sum(-1)
            learned = cosine.relu() * scale[there, place] * shares[place]
            weights = weights.index_add(0, there, learned, alpha=1 - self.frozen_share)
        return weights

    def _scale_of(self, place: int, features: FetchFeatures, num_users: int, num_items: int) -> Any:
        """`[num_nodes, num_nodes]` CSR with `1 / √(d_i d_j)` on the edges of the modality's learned graph."""
        projected, present = self._projected(place, features, num_items)
        device = self.modality_logits.device
        indices, similarity = content_neighbours(projected, present, self.neighbours, device=device, method=self.method)
        rows, columns = np.nonzero((indices >= 0) & (similarity > 0))
        entries = similarity[rows, columns].astype(np.float64)
        size = num_users + num_items
        where = (num_users + rows, num_users + indices[rows, columns])
        adjacency = scipy.sparse.csr_matrix((entries, where), shape=(size, size))
        row_sums = np.asarray(adjacency.sum(axis=1)).ravel()
        adjacency.data[:] = 1.0
        return normalised_matrix(adjacency, row_sums, row_sums)

    def _projected(self, place: int, features: FetchFeatures, num_items: int) -> tuple[Tensor, Tensor]:
        """`[num_items, feature_dim]` fp32 and `[num_items]` bool, of a modality.

        Calculated in fp64: rounded to fp32 afterwards, it does not depend on how a machine adds up its products, so
        that all ranks find the same neighbours.
        """
        projector = deepcopy(self.projectors[place]).double()
        rows, present = [], []
        for start in range(0, num_items, _ITEMS_AT_ONCE):
            stop = min(start + _ITEMS_AT_ONCE, num_items)
            items = torch.arange(start, stop, device=self.modality_logits.device)
            values, has = features(self.modalities[place], items)
            rows.append(projector(values.double()).float())
            present.append(has)
        return torch.cat(rows), torch.cat(present)
