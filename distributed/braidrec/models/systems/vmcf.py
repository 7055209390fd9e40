"""VMCF."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from braidrec.graph.hop import Neighbourhood
from braidrec.graph.related import RELATED
from braidrec.models.contract import Branch, Encoded, Inputs, LossTerm, StepContext, TableSpec
from braidrec.models.systems.modality_rows import ModalityRows


class VMCF(nn.Module):
    """Visual matrix co-factorisation (Park et al., WWW 2017): ratings and pairs of items share the items' factors.

        x̂_ui = ⟨U_u, V_i⟩ + Σ_m ⟨P_u^m, E_m f_i^m⟩,    ŝ_ij = σ(⟨V_i, Z_j⟩)

    Beside the objective (squared errors of ratings, or BPR) there is, over the pairs (i, j) of the relation `related`
    whose i is a positive item of the batch, with n items j′ drawn at random for each,

        λ · mean over pairs of [(1 − ŝ_ij)² + 1/n Σ_{j′} ŝ_ij′²]    and    λ_Z · mean of ½ ‖Z‖² over both kinds.

    Without features (`visual=False`) this is co-factorisation, with `relation_weight=0` matrix factorisation with
    tastes in features, with neither plain matrix factorisation. The paper has one modality, the image; here each has an
    E and a part of P. An item without a modality has a learned vector for `E f`. A drawn j′ may belong to i.

    The vectors are `(U_u, P_u^1, …)` and `(V_i, E_1 f_i^1, …)`; the regulariser sees U, P and V.

    Args:
        dim: size of U, V and Z.
        initial_std: all factors start as N(0, std²).
        dims: numbers per feature vector, by modality.
        visual: with features.
        content_dim: size of P^m.
        relation_weight: λ.
        non_edges: n.
        relation_regulariser: λ_Z.
    Raises:
        ValueError: no modality, though `visual`.
    """

    def __init__(
        self,
        *,
        dim: int,
        initial_std: float,
        dims: Mapping[str, int] | None = None,
        visual: bool = True,
        content_dim: int = 10,
        relation_weight: float = 1.0,
        non_edges: int = 1,
        relation_regulariser: float = 0.01,
    ) -> None:
        super().__init__()
        dims = dict(dims or {}) if visual else {}
        self.dim, self.relation_weight = dim, relation_weight
        self.non_edges, self.relation_regulariser = non_edges, relation_regulariser
        self.content = (
            ModalityRows(dims, dict.fromkeys(dims, content_dim), initial_std=initial_std, bias=False)
            if visual
            else None
        )
        self.users = TableSpec(width=dim + content_dim * len(dims), std=initial_std, side="users")
        self.items = TableSpec(width=dim, std=initial_std, side="items")
        self.term_names: tuple[str, ...] = ("pairs", "partners") if relation_weight else ()

    def tables(self) -> Mapping[str, TableSpec]:
        found = {"user": self.users, "item": self.items}
        return found | {"partner": self.items} if self.relation_weight else found

    def branches(self) -> Mapping[str, Branch]:
        own = {"own": Branch(chain=())}
        return own | {RELATED: Branch(chain=None, training=(RELATED,))} if self.relation_weight else own

    def encode(self, inputs: Inputs) -> Encoded:
        sides = inputs.sides(inputs.neighbourhoods["own"].input_nodes)
        users, items = inputs.table("user", sides.users), inputs.table("item", sides.items)
        parts = [items]
        if self.content is not None:
            parts += [self.content(name, *inputs.features(name, sides.items)) for name in self.content.modalities]
        ego = sides.join(users, pad(items, (0, users.shape[1] - items.shape[1])))
        return Encoded(vectors=sides.join(users, torch.cat(parts, dim=-1)), ego=ego)

    def terms(self, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        if not self.relation_weight:
            return {}
        neighbourhood = inputs.neighbourhoods[RELATED]
        weight, partner, factors = _pairs(neighbourhood, encoded.vectors[:, : self.dim], step.seed_weight)
        partners = inputs.table("partner", partner - inputs.num_users)
        errors = (1 - (factors * partners).sum(-1).sigmoid()).square()
        norms = 0.5 * partners.square().sum(-1)
        if self.non_edges:
            drawn = torch.randint(inputs.num_items, (len(partner) * self.non_edges,), device=partner.device)
            others = inputs.table("partner", drawn).reshape(len(partner), self.non_edges, self.dim)
            errors = errors + (factors.unsqueeze(1) * others).sum(-1).sigmoid().square().mean(1)
            norms = norms + 0.5 * others.square().sum(-1).mean(1)
        pairs = _number_of_pairs(neighbourhood, inputs, step)
        return {
            "pairs": LossTerm(total=(weight * errors).sum(), weight=pairs, coefficient=self.relation_weight),
            "partners": LossTerm(total=(weight * norms).sum(), weight=pairs, coefficient=self.relation_regulariser),
        }


def _pairs(neighbourhood: Neighbourhood, factors: Tensor, seed_weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of the (drawn) pairs of the seeds that count: what each counts, the node j, and `[n, d]` V_i."""
    (hop,) = neighbourhood.hops
    sources, destinations, _ = hop.edges()
    place = torch.full((hop.num_dst,), -1, dtype=torch.int64, device=sources.device)
    own = torch.arange(len(seed_weight), device=sources.device)
    if neighbourhood.holds_only_seeds(1):
        place[: len(own)] = own
    else:
        assert neighbourhood.seeds is not None
        place[neighbourhood.seeds] = own
    seed = place.index_select(0, destinations)
    counted = ((seed >= 0) & (seed_weight.index_select(0, seed.clamp(min=0)) > 0)).nonzero().squeeze(-1)
    seed, sources = seed.index_select(0, counted), sources.index_select(0, counted)
    weight = seed_weight.index_select(0, seed)
    if hop.scale is not None:
        weight = weight * hop.scale.index_select(0, destinations.index_select(0, counted)).to(weight.dtype)
    partner = sources if hop.src_nodes is None else hop.src_nodes.index_select(0, sources)
    return weight, partner, factors.index_select(0, seed)


def _number_of_pairs(neighbourhood: Neighbourhood, inputs: Inputs, step: StepContext) -> Tensor:
    """How many pairs the counted seeds have, drawn or not."""
    assert inputs.seeds is not None
    degree = neighbourhood.hops[0].relation.in_degree_of(inputs.seeds)
    return (step.seed_weight * degree.to(step.seed_weight.dtype)).sum()
