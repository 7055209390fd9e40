"""MGCN."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from braidrec.graph.propagate import propagate, propagate_to_readout
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.contract import Branch, Encoded, Inputs, LossTerm, StepContext, TableSpec
from braidrec.models.fusion.attention import StrandAttention
from braidrec.models.fusion.strands import Strands
from braidrec.models.projectors import Projector
from braidrec.objectives.arguments import above_zero
from braidrec.objectives.self_supervised.info_nce import InfoNCE


class MGCN(nn.Module):
    """Modalities purified by behaviour and spread on graphs of their own (Yu et al., MGCN, ACM Multimedia 2023).

    **Purifier.** A feature opens a gate for the item's ID embedding: `p_i^m = e_i ⊙ σ(G_m (W_m x_i^m + b_m) + c_m)`.

    **Views.** `b = mean_l Â^l E` is behaviour, from the normalised interactions Â. In each modality items spread what
    they hold over their neighbours, `z_I^m = (S^m)^{L_i} p^m` with S^m the relation `content/<m>`, and users take it
    from their items, `z_U^m = Â_UI z_I^m`.

    **Fuser.** What the modalities share is `s = Σ_m α_m z^m`, `α_m = softmax_m(qᵀ tanh(Q z^m + r))`; what is left of
    each passes a gate that behaviour opens, and the vector of a user or item is

        b + a,    a = [s + Σ_m σ(P_m b + d_m) ⊙ (z^m − s)] / (|M| + 1).

    **Contrast.** Beside the objective (BPR), `λ · InfoNCE(a, b)` over the batch's users and over its positive items.

    A node with nothing in a modality (an item that lacks it is nobody's neighbour and has none; a user who has only
    such items) is left out of the attention and of the sum there. The divisor is that of the published program.
    Deviations from it: features are not trained, an item is not its own neighbour, the regulariser shrinks embeddings
    instead of final vectors, and in InfoNCE a node that stands in several rows is not its own negative.

    Args:
        dim: size of an embedding.
        initial_std: embeddings start as N(0, std²).
        dims: numbers per feature vector, by modality.
        layers: hops on the user–item graph.
        item_layers: L_i, hops on the item–item graphs.
        temperature: of InfoNCE.
        contrast_weight: λ.
        dtype: number format inside the hops while training, None: that of the embeddings.
    Raises:
        ValueError: no modality, fewer than one hop on the item–item graphs, or a temperature that is not above 0.
    """

    term_names: tuple[str, ...] = ("contrast_users", "contrast_items")

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        dims: Mapping[str, int],
        layers: int = 2,
        item_layers: int = 1,
        temperature: float = 0.2,
        contrast_weight: float = 0.01,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not dims:
            raise ValueError("dims is empty: MGCN needs at least one modality with features")
        if item_layers < 1:
            raise ValueError(f"item_layers={item_layers} must be at least 1")
        self.spec = TableSpec(width=dim, std=initial_std)
        self.layers, self.item_layers, self.dtype = layers, item_layers, dtype
        self.temperature, self.contrast_weight = above_zero("temperature", temperature), contrast_weight
        self.modalities = tuple(sorted(dims))
        self.projectors = nn.ModuleList(Projector(dims[name], dim) for name in self.modalities)
        self.purifiers = nn.ModuleList(Projector(dim, dim) for _ in self.modalities)
        self.preferences = nn.ModuleList(Projector(dim, dim) for _ in self.modalities)
        self.attention = StrandAttention(dim)

    def tables(self) -> Mapping[str, TableSpec]:
        return {"id": self.spec}

    def branches(self) -> Mapping[str, Branch]:
        by_modality = {
            name: Branch(chain=(f"content/{name}",) * self.item_layers + (INTERACTIONS,)) for name in self.modalities
        }
        return {"interactions": Branch(chain=(INTERACTIONS,) * self.layers), **by_modality}

    def encode(self, inputs: Inputs) -> Encoded:
        dtype = self.dtype if self.training else None
        neighbourhood = inputs.neighbourhoods["interactions"]
        rows = inputs.table("id", neighbourhood.input_nodes)
        behaviour, ego = propagate_to_readout(neighbourhood, rows, "mean", dtype=dtype)
        spread = {name: self._spread(inputs, place, dtype) for place, name in enumerate(self.modalities)}
        side = self._fused(behaviour, spread)
        return Encoded(vectors=behaviour + side, ego=ego, outputs={"behaviour": behaviour, "side": side})

    def terms(self, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        loss, batch = InfoNCE(temperature=self.temperature, gather=step.gather), step.batch
        side, behaviour = encoded.outputs["side"], encoded.outputs["behaviour"]
        users, items, _ = batch.split(step.places)
        found = {}
        for name, places, nodes in zip(self.term_names, (users, items), (batch.users, batch.items), strict=True):
            # A node's rows are equal: it is compared once, and counts as often as it stands there.
            distinct, row, counts = _distinct(places, batch.real)
            ids = torch.empty_like(distinct).scatter_(0, row, nodes)
            rows = loss.rows(side.index_select(0, distinct), behaviour.index_select(0, distinct), counts, ids, counts)
            found[name] = LossTerm(
                total=(rows * counts).sum(), weight=batch.real.sum(), coefficient=self.contrast_weight
            )
        return found

    def _spread(self, inputs: Inputs, place: int, dtype: torch.dtype | None) -> Tensor:
        """`[num_seeds, d]` z of a modality."""
        name = self.modalities[place]
        neighbourhood = inputs.neighbourhoods[name]
        sides = inputs.sides(neighbourhood.input_nodes)
        values, _ = inputs.features(name, sides.items)
        gates = self.purifiers[place](self.projectors[place](values)).sigmoid()
        if sides.items is None:
            purified = inputs.table("id", None)[inputs.num_users :] * gates
        else:
            purified = inputs.table("id", sides.items + inputs.num_users) * gates
        nothing = purified.new_zeros(sides.num_rows - len(purified), purified.shape[1])
        levels = propagate(neighbourhood, sides.join(nothing, purified), dtype=dtype)
        # The last hop brings the items' rows to the users, who have none before. For the same reason items get nothing
        # from it: they keep those that they had.
        return levels[-2] + levels[-1]

    def _fused(self, behaviour: Tensor, spread: Mapping[str, Tensor]) -> Tensor:
        """`[n, d]` a."""
        present = torch.stack([rows.detach().any(-1) for rows in spread.values()], dim=-1)
        weights = self.attention(Strands(rows=spread, present=present)).unsqueeze(-1)
        stacked = torch.stack(list(spread.values()), dim=1)
        shared = (weights * stacked).sum(1)
        gates = torch.stack([gate(behaviour) for gate in self.preferences], dim=1).sigmoid()
        specific = (gates * (stacked - shared.unsqueeze(1))).masked_fill(~present.unsqueeze(-1), 0.0)
        side: Tensor = (shared + specific.sum(1)) / (len(spread) + 1)
        return side


def _distinct(places: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each place once, where among them every row's is, and in how many rows it stands that are no padding."""
    distinct, row = torch.unique(places, return_inverse=True)
    return distinct, row, real.new_zeros(len(distinct)).index_add_(0, row, real)
