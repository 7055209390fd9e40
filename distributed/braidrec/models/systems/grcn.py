"""GRCN."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from braidrec.graph.attention import end_products, softmax_over_sources
from braidrec.graph.hop import Hop, Neighbourhood
from braidrec.graph.kernels import weighted_sum_sources
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.contract import Branch, Encoded, Inputs, TableSpec, WithoutTerms
from braidrec.models.sides import Sides
from braidrec.models.systems.modality_rows import ModalityRows
from braidrec.objectives.cosine import unit_rows

Weighting = Literal["confidence", "max", "mean"]
Pruning = Literal["hard", "soft"]


class GRCN(WithoutTerms, nn.Module):
    """The interaction graph refined by content (Wei et al., GRCN, ACM Multimedia 2020).

    **Routing.** In modality m an item is `c_i = unit(LeakyReLU(W_m f_i + b_m))`. A user's prototype starts as a learned
    preference, `c_u = unit(p_u^m)`, and is drawn to those items of the user that are like it, `routing` times:

        c_u ← unit(c_u + Σ_{i ∈ N(u)} s(i → u) c_i),    s(w → v) = softmax_{w ∈ N(v)} ⟨c_w, c_v⟩.

    **Refined graph.** An edge weighs `a(w → v) = max_m b_w^m s^m(w → v)`, b the learned confidence in what node w shows
    in modality m. With hard pruning edges of a weight below zero are cut, `max(0, a)`; with soft pruning all stay. The
    ID embeddings are propagated over it: `e^{(0)} = unit(e)`, `e_v^{(l+1)} = Σ_w a(w → v) e_w^{(l)}`.

    **Vectors.** `[Σ_{l=0..L} e^{(l)} ‖ c^1 + Σ s^1 c^1 ‖ … ‖ c^M + Σ s^M c^M]`.

    The published program routes along the edges from users to items, so that its users receive nothing and keep their
    preferences; here they are routed as in the paper. The regulariser sees ID embeddings and preferences.

    On a sampled neighbourhood s is the share among the neighbours that were drawn, and each hop has weights of its own.

    Args:
        dim: size of an ID embedding.
        initial_std: ID embeddings, preferences and confidences start as N(0, std²).
        dims: numbers per feature vector, by modality.
        layers: L, hops of the ID embeddings.
        routing: iterations.
        content_dim: size of c.
        weighting: "confidence" as above; "max" or "mean" of s over the modalities, without confidences.
        pruning: "hard" or "soft"; the same where there are no confidences.
        dtype: number format of the ID embeddings' hops while training, None: that of the embeddings.
    Raises:
        ValueError: no modality, no layer or no routing.
    """

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        dims: Mapping[str, int],
        layers: int = 2,
        routing: int = 3,
        content_dim: int = 64,
        weighting: Weighting = "confidence",
        pruning: Pruning = "hard",
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("layers", layers), ("routing", routing)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        self.content = ModalityRows(dims, dict.fromkeys(dims, content_dim), initial_std=initial_std)
        self.layers, self.routing, self.content_dim = layers, routing, content_dim
        self.weighting, self.pruning, self.dtype = weighting, pruning, dtype
        self.specs = {
            "id": TableSpec(width=dim, std=initial_std),
            "preference": TableSpec(width=content_dim * len(dims), std=initial_std, side="users"),
        }
        if weighting == "confidence":
            self.specs["confidence"] = TableSpec(width=len(dims), std=initial_std)

    def tables(self) -> Mapping[str, TableSpec]:
        return self.specs

    def branches(self) -> Mapping[str, Branch]:
        # One hop before those of the ID embeddings: the items of all users at whose edges weights are needed.
        return {"graph": Branch(chain=(INTERACTIONS,) * (1 + self.layers))}

    def encode(self, inputs: Inputs) -> Encoded:
        neighbourhood = inputs.neighbourhoods["graph"]
        refined = neighbourhood.after_first_hop()
        sides = inputs.sides(refined.input_nodes)
        ids, preferences = inputs.table("id", refined.input_nodes), inputs.table("preference", sides.users)
        content = self._routed(inputs, neighbourhood, sides, preferences)
        vectors = self._on_refined_graph(inputs, refined, unit_rows(ids), content)
        nothing = preferences.new_zeros(sides.num_rows - len(preferences), preferences.shape[1])
        ego = torch.cat([ids, sides.join(preferences, nothing)], dim=-1)
        return Encoded(vectors=vectors, ego=refined.at_seeds(ego, 0))

    def _routed(self, inputs: Inputs, neighbourhood: Neighbourhood, sides: Sides, preferences: Tensor) -> list[Tensor]:
        """c of the destinations of the first hop, `[num_dst, content_dim]` for each modality.

        Args:
            sides: of these destinations.
            preferences: `[num_users, M content_dim]` of the users among them.
        """
        hop = neighbourhood.hops[0]
        sources = inputs.sides(neighbourhood.input_nodes)
        users = torch.arange(len(preferences)) if sides.user_rows is None else sides.user_rows
        of_users, _ = hop.structure.rows(users)
        routed = []
        by_modality = torch.split(preferences, self.content_dim, dim=-1)
        for name, preference in zip(self.content.modalities, by_modality, strict=True):
            items = unit_rows(leaky_relu(self.content(name, *inputs.features(name, sources.items))))
            # A user's neighbours are items: what stands for users among the sources is not looked at.
            c = sources.join(items.new_zeros(sources.num_rows - len(items), self.content_dim), items)
            all_sources = hop.sources(c)
            prototype = unit_rows(preference)
            for _ in range(self.routing):
                products = end_products(of_users, all_sources, prototype, hop.kernel)
                shares = softmax_over_sources(of_users, products, hop.kernel)
                prototype = unit_rows(prototype + weighted_sum_sources(of_users, all_sources, shares, hop.kernel))
            routed.append(sides.join(prototype, sides.of_items(hop.own(c), inputs.num_users)))
        return routed

    def _on_refined_graph(self, inputs: Inputs, refined: Neighbourhood, e: Tensor, content: list[Tensor]) -> Tensor:
        """`[num_seeds, dim + M content_dim]` vectors from e^{(0)} and c at level 0."""
        content_of = [_at_sources(refined, c) for c in content]
        confidence_of: Sequence[Tensor | None] = [None] * len(refined.hops)
        if self.weighting == "confidence":
            confidence_of = _at_sources(refined, inputs.table("confidence", refined.input_nodes))
        total = refined.at_seeds(e, 0)
        e = e.to(self.dtype) if self.dtype is not None and self.training else e
        before, shares, weight = None, list[Tensor](), e
        for place, hop in enumerate(refined.hops):
            # Hops that span everything are one and the same, and so are their weights.
            if hop is not before:
                shares = [_shares(hop, levels[place]) for levels in content_of]
                weight = self._edge_weight(hop, shares, confidence_of[place])
            e = weighted_sum_sources(hop.structure, hop.sources(e), weight, hop.kernel)
            total = total + refined.at_seeds(e, place + 1).to(total.dtype)
            before = hop
        last = refined.hops[-1]
        parts = [
            last.own(levels[-1]) + weighted_sum_sources(last.structure, last.sources(levels[-1]), share, last.kernel)
            for levels, share in zip(content_of, shares, strict=True)
        ]
        return torch.cat([total, *(refined.at_seeds(part, len(refined.hops)) for part in parts)], dim=-1)

    def _edge_weight(self, hop: Hop, shares: list[Tensor], confidence: Tensor | None) -> Tensor:
        """`[num_edges]` a, from s of every modality and `[num_src, M]` b."""
        by_modality = torch.stack(shares, dim=-1)
        if self.weighting == "mean":
            return by_modality.mean(-1)
        if confidence is None:
            return by_modality.amax(-1)
        weight = (by_modality * hop.sources(confidence).index_select(0, hop.structure.indices.long())).amax(-1)
        return weight.relu() if self.pruning == "hard" else weight


def _at_sources(neighbourhood: Neighbourhood, rows: Tensor) -> list[Tensor]:
    """The rows of level 0 that the sources of each hop have there."""
    before_last = neighbourhood.hops[:-1]
    return list(accumulate(before_last, lambda here, hop: hop.own(here), initial=rows))


def _shares(hop: Hop, c: Tensor) -> Tensor:
    """`[num_edges]` s, from `[num_src, content_dim]` c."""
    products = end_products(hop.structure, hop.sources(c), hop.own(c), hop.kernel)
    return softmax_over_sources(hop.structure, products, hop.kernel)
