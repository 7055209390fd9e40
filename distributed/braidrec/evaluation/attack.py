"""How features have to be moved so that a trained model ranks worse: what adversarial training is against."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from braidrec.evaluation.scoring import whole_inputs
from braidrec.graph.neighbourhood import FullGraph
from braidrec.models.contract import FetchFeatures, LearnsRelations, Recommender
from braidrec.objectives.cosine import directions, unit_rows

TRIPLES_AT_ONCE = 1 << 17
"""Triples that are scored at a time, which bounds the memory beside the vectors."""


@dataclass(frozen=True, kw_only=True)
class Triples:
    """Users, items that they took and items that they did not, each `[n]` int64 from 0 on."""

    users: Tensor
    items: Tensor
    negatives: Tensor


def worst_directions(
    model: Recommender,
    tables: Mapping[str, Tensor],
    graph: FullGraph,
    features: FetchFeatures,
    modalities: Sequence[str],
    triples: Triples,
    *,
    num_users: int,
    cold: Tensor,
    cosine: bool = False,
) -> dict[str, Tensor]:
    """`Γ_i / ‖Γ_i‖₂`, `Γ_i = ∂L/∂c_i`, of every item and modality (Tang et al., AMR, IEEE TKDE 2020).

    L is the BPR of all triples under the model as it is evaluated, exactly over the whole graph; relations that a model
    learns from features are held fixed. The features of all items are in memory, with their gradients.

    Args:
        model: in evaluation mode.
        tables: by name, all their rows.
        graph: of the relations that stay as they are; it gets those that the model learns.
        features: as `Inputs.features`.
        modalities: those that are attacked.
        triples: of the train split, whose negatives are drawn.
        num_users: nodes below are users.
        cold: `[num_items]` items without train interactions.
        cosine: scores are cosines.
    Returns:
        by modality, `[num_items, F]` rows of length 1; zeros where an item lacks the modality or nothing depends on it.
    """
    if isinstance(model, LearnsRelations):
        with torch.no_grad():
            for relation in model.learned_relations(features, graph.relations, num_users=num_users).values():
                graph.replace(relation)
    given = {name: features(name, None) for name in modalities}
    leaves = {name: values.detach().clone().requires_grad_() for name, (values, _) in given.items()}

    def watched(modality: str, items: Tensor | None) -> tuple[Tensor, Tensor]:
        if modality not in leaves:
            return features(modality, items)
        values, present = leaves[modality], given[modality][1]
        return (values, present) if items is None else (values.index_select(0, items), present.index_select(0, items))

    with torch.enable_grad():
        vectors = model.encode(whole_inputs(model, tables, graph, watched, num_users, cold)).vectors
        if not vectors.requires_grad:
            return {name: torch.zeros_like(values) for name, values in leaves.items()}
        slopes = torch.autograd.grad(
            vectors, list(leaves.values()), _slopes_of_vectors(vectors, triples, num_users, cosine), allow_unused=True
        )
    found = {}
    for (name, values), slope in zip(leaves.items(), slopes, strict=True):
        present = given[name][1].unsqueeze(-1)
        found[name] = torch.zeros_like(values) if slope is None else directions(slope).masked_fill(~present, 0.0)
    return found


def random_directions(features: FetchFeatures, modalities: Sequence[str], *, seed: int) -> dict[str, Tensor]:
    """Directions drawn evenly, as `worst_directions` in all else: what the same length does without a purpose."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name in sorted(modalities):
        values, present = features(name, None)
        drawn = torch.randn(values.shape, generator=generator).to(values.device)
        found[name] = directions(drawn).masked_fill(~present.unsqueeze(-1), 0.0)
    return found


def moved_features(features: FetchFeatures, directions: Mapping[str, Tensor], epsilon: float) -> FetchFeatures:
    """`c_i + ε · direction` for the modalities that have directions."""

    def fetch(modality: str, items: Tensor | None) -> tuple[Tensor, Tensor]:
        values, present = features(modality, items)
        if modality not in directions:
            return values, present
        towards = directions[modality]
        return values + epsilon * (towards if items is None else towards.index_select(0, items)), present

    return fetch


def _slopes_of_vectors(vectors: Tensor, triples: Triples, num_users: int, cosine: bool) -> Tensor:
    """`[num_nodes, D]` ∂L/∂vectors, some triples at a time."""
    leaf = vectors.detach().requires_grad_()
    for start in range(0, len(triples.users), TRIPLES_AT_ONCE):
        part = slice(start, start + TRIPLES_AT_ONCE)
        rows = unit_rows(leaf) if cosine else leaf
        users = rows.index_select(0, triples.users[part])
        items = rows.index_select(0, triples.items[part] + num_users)
        others = rows.index_select(0, triples.negatives[part] + num_users)
        loss = softplus((users * (others - items)).sum(-1)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    return torch.zeros_like(vectors) if leaf.grad is None else leaf.grad
