"""What DualGNN and DRAGON have in common: modalities on the user–item graph, then graphs among users (and items)."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from braidrec.graph.hop import Hop
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.contract import Branch, Encoded, Inputs, TableSpec, WithoutTerms
from braidrec.models.sides import Sides
from braidrec.models.systems.modality_rows import ModalityRows
from braidrec.objectives.cosine import unit_rows

Combination = Literal["sum", "concat"]


class DualGraph(WithoutTerms, nn.Module):
    """Modalities propagated side by side, weighed by every user for herself, and shared with users who are alike.

    **Modalities.** In modality m a user starts as a learned preference and an item as its feature, both of length 1,
    and the levels are added up:

        x_u^m = p_u^m / ‖p_u^m‖,    x_i^m = f^m(x_i) / ‖f^m(x_i)‖,    h^m = Σ_l Â^l x^m,    l = 0..L

    with f^m a perceptron over 4 d hidden units and Â the normalised interactions.

    **Fusion.** A user has a share for each modality, an item takes all alike:

        h_u = ⊕_m α_u^m h_u^m,    α_u = softmax(a_u),    h_i = ⊕_m h_i^m

    where ⊕ is the sum or puts the modalities side by side.

    **Graphs on either side.** `ĥ_u = h_u + (S_U^{L_U} h)_u` over the relation `co_interaction`, which joins users by
    the items they share, and `ĥ_i = h_i + (S_I^{L_I} h)_i` over the relation `content`, the frozen graph of items whose
    features are alike; without the latter `ĥ_i = h_i`.

    The regulariser sees preferences and a. An item that lacks a modality has a learned vector there.

    Args:
        dim: size of a preference and of a mapped feature.
        initial_std: preferences start as N(0, std²), and so does a, so that shares are about equal.
        dims: numbers per feature vector, by modality.
        layers: L, hops on the user–item graph.
        user_layers: L_U, hops on the user–user graph.
        item_layers: L_I, hops on the item–item graph; 0: there is none.
        combination: ⊕, "sum" or "concat".
        dtype: number format inside the hops while training, None: that of the embeddings.
    Raises:
        ValueError: no modality, fewer than one hop on the user–item or the user–user graph, or fewer than 0 on the
            item–item graph.
    """

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        dims: Mapping[str, int],
        layers: int = 2,
        user_layers: int = 1,
        item_layers: int,
        combination: Combination,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("layers", layers, 1),
            ("user_layers", user_layers, 1),
            ("item_layers", item_layers, 0),
        ):
            if value < least:
                raise ValueError(f"{name}={value} must be at least {least}")
        self.content = ModalityRows(dims, dict.fromkeys(dims, dim), initial_std=initial_std, hidden=4 * dim)
        self.dim, self.layers, self.user_layers, self.item_layers = dim, layers, user_layers, item_layers
        self.combination, self.dtype = combination, dtype
        self.preferences = TableSpec(width=dim * len(dims), std=initial_std, side="users")
        self.shares = TableSpec(width=len(dims), std=initial_std, side="users")

    def tables(self) -> Mapping[str, TableSpec]:
        return {"preference": self.preferences, "share": self.shares}

    def branches(self) -> Mapping[str, Branch]:
        # Users have no edges on the item–item graph and items none on the user–user graph: one chain serves both.
        among = ("content",) * self.item_layers + ("co_interaction",) * self.user_layers
        return {"graph": Branch(chain=(INTERACTIONS,) * self.layers + among)}

    def encode(self, inputs: Inputs) -> Encoded:
        neighbourhood = inputs.neighbourhoods["graph"]
        last = self.layers + self.item_layers
        to_items, among_items, among_users = (
            neighbourhood.hops[: self.layers],
            neighbourhood.hops[self.layers : last],
            neighbourhood.hops[last:],
        )
        h = self._summed_levels(self._start(inputs, neighbourhood.input_nodes), to_items)
        nodes = among_users[0].src_nodes if not among_items else among_items[0].src_nodes
        h = self._fused(inputs, h, nodes)
        for hops in (among_items, among_users):
            h = self._with_neighbours(h, hops)
        vectors = neighbourhood.at_seeds(h, len(neighbourhood.hops))
        return Encoded(vectors=vectors, ego=self._ego(inputs))

    def _start(self, inputs: Inputs, nodes: Tensor | None) -> Tensor:
        """`[n, M · d]` x of all modalities side by side."""
        sides = inputs.sides(nodes)
        preferences = torch.split(inputs.table("preference", sides.users), self.dim, dim=-1)
        rows = [self.content(name, *inputs.features(name, sides.items)) for name in self.content.modalities]
        joined = [
            unit_rows(sides.join(of_users, of_items)) for of_users, of_items in zip(preferences, rows, strict=True)
        ]
        return torch.cat(joined, dim=-1)

    def _summed_levels(self, x: Tensor, hops: tuple[Hop, ...]) -> Tensor:
        """`Σ_l Â^l x` where the last hop ends."""
        total, level = x, x.to(self._dtype(x))
        for hop in hops:
            level = hop.aggregate(level)
            total = hop.own(total) + level.to(x.dtype)
        return total

    def _with_neighbours(self, h: Tensor, hops: tuple[Hop, ...]) -> Tensor:
        """`h + S^L h` where the last hop ends; rows of the side that has no edges stay."""
        level = h.to(self._dtype(h))
        for hop in hops:
            level, h = hop.aggregate(level), hop.own(h)
        return h + level.to(h.dtype) if hops else h

    def _fused(self, inputs: Inputs, h: Tensor, nodes: Tensor | None) -> Tensor:
        """h of users and items, from that of all modalities side by side."""
        sides = inputs.sides(nodes)
        shares = self._shares(inputs, sides)
        by_modality = h.reshape(len(h), -1, self.dim)
        weight = sides.join(shares, shares.new_ones(sides.num_rows - len(shares), shares.shape[1]))
        weighed = by_modality * weight.unsqueeze(-1)
        return weighed.sum(1) if self.combination == "sum" else weighed.flatten(1)

    def _shares(self, inputs: Inputs, sides: Sides) -> Tensor:
        """`[num_users, M]` α."""
        return inputs.table("share", sides.users).softmax(-1)

    def _ego(self, inputs: Inputs) -> Tensor:
        """`[num_seeds, M (d + 1)]` preferences and a of the users, zeros for items."""
        sides = inputs.sides(inputs.seeds)
        rows = torch.cat([inputs.table("preference", sides.users), inputs.table("share", sides.users)], dim=-1)
        return sides.join(rows, rows.new_zeros(sides.num_rows - len(rows), rows.shape[1]))

    def _dtype(self, rows: Tensor) -> torch.dtype:
        return self.dtype or rows.dtype if self.training else rows.dtype
