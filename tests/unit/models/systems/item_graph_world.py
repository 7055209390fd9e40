"""Twelve nodes with two modalities and the item–item graphs of both; one item lacks the text, one has neither.

Dense matrices of the same graphs come from plain loops over the features and edges.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from dense_oracles import ITEMS, NUM_ITEMS, NUM_NODES, NUM_USERS, USERS
from model_inputs import Features, inputs_for

from braidrec.graph.build import build_interactions
from braidrec.graph.content import combined_relation, content_relation
from braidrec.graph.knn import content_neighbours
from braidrec.graph.neighbourhood import FullGraph, NeighbourhoodSource, SampledSubgraph
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.graph.views import drop_edges_by_degree
from braidrec.models.contract import Batch, Encoded, Inputs, LossTerm, Recommender, StepContext

CPU = torch.device("cpu")
DIM, K = 3, 2
DIMS = {"text": 3, "image": 4}
WEIGHTS = {"image": 0.25, "text": 0.75}
PRESENT = {"image": [1, 1, 1, 1, 1, 0, 1], "text": [1, 1, 0, 1, 1, 0, 1]}
# Degrees' roots and the weights of relations are kept in fp32.
TOLERANCE = {"rtol": 0, "atol": 2e-6}


def make_features(seed: int = 0) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """By modality, rows (zeros where absent) and presence."""
    rng = np.random.default_rng(seed)
    made = {}
    for name in sorted(DIMS):
        present = torch.tensor(PRESENT[name]).bool()
        values = torch.from_numpy(rng.normal(size=(NUM_ITEMS, DIMS[name])) + 0.4)
        made[name] = (values.masked_fill(~present.unsqueeze(-1), 0.0), present)
    return made


def make_relations(features: Features, weight: str = "binary") -> dict[str, Relation]:
    """The interactions, their pruned view, both content graphs, and their sum."""
    interactions = build_interactions(USERS, ITEMS, NUM_USERS, NUM_ITEMS)
    pruned = drop_edges_by_degree(interactions, 0.6, seed=3)
    pruned.name = f"{INTERACTIONS}~pruned"
    content = {
        name: content_relation(content_neighbours(values, present, K, device=CPU), NUM_USERS, name, weight=weight)
        for name, (values, present) in features.items()
    }
    named = {relation.name: relation for relation in content.values()}
    return {
        INTERACTIONS: interactions,
        pruned.name: pruned,
        **named,
        "content": combined_relation(content, WEIGHTS),
    }


def source_over(relations: Mapping[str, Relation], mode: str = "full") -> NeighbourhoodSource:
    """ "full", or "sampled" with every neighbour taken."""
    if mode == "full":
        return FullGraph(relations, device=CPU, kernel="dgl")
    return SampledSubgraph(relations, device=CPU, kernel="dgl")


def edges_of(relation: Relation) -> list[tuple[int, int]]:
    """(source, destination) of every edge."""
    return [
        (int(relation.indices[place]), node)
        for node in range(relation.num_nodes)
        for place in range(relation.indptr[node], relation.indptr[node + 1])
    ]


def dense_unweighted(relation: Relation) -> np.ndarray:
    """`D^{-1/2} A D^{-1/2}`, edge by edge, with the relation's own degrees."""
    edges = edges_of(relation)
    degree = [sum(destination == node for _, destination in edges) for node in range(NUM_NODES)]
    matrix = np.zeros((NUM_NODES, NUM_NODES))
    for source, destination in edges:
        matrix[destination, source] = 1 / sqrt(degree[source] * degree[destination])
    return matrix


def nearest(values: np.ndarray, present: np.ndarray, k: int = K) -> dict[tuple[int, int], float]:
    """Cosine of every item and each of its k nearest, by a double loop."""
    found = {}
    for item in np.flatnonzero(present).tolist():
        others = []
        for other in np.flatnonzero(present).tolist():
            if other != item:
                norms = np.linalg.norm(values[item]) * np.linalg.norm(values[other])
                others.append((float(values[item] @ values[other]) / norms, other))
        for cosine, other in sorted(others, reverse=True)[:k]:
            found[item, other] = cosine
    return found


def dense_content(values: np.ndarray, present: np.ndarray, weight: str = "binary") -> np.ndarray:
    """`[nodes, nodes]`: `A_ij / √(r_i r_j)` with r the row sums, zero at users."""
    adjacency = np.zeros((NUM_ITEMS, NUM_ITEMS))
    for (item, other), cosine in nearest(values, present).items():
        adjacency[item, other] = 1.0 if weight == "binary" else max(cosine, 0.0)
    row_sum = adjacency.sum(1)
    whole = np.zeros((NUM_NODES, NUM_NODES))
    for item in range(NUM_ITEMS):
        for other in range(NUM_ITEMS):
            if adjacency[item, other]:
                scaled = adjacency[item, other] / sqrt(row_sum[item] * row_sum[other])
                whole[NUM_USERS + item, NUM_USERS + other] = scaled
    return whole


def fill(model: torch.nn.Module, seed: int = 1) -> None:
    """Every parameter random, biases too, so that nothing is zero by chance of its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)


def make_tables(model: Recommender) -> dict[str, torch.Tensor]:
    """Random rows of every table, fp64, requiring gradients."""
    made = {}
    for number, (name, spec) in enumerate(sorted(model.tables().items())):
        generator = torch.Generator().manual_seed(20 + number)
        shape = (spec.num_rows(NUM_USERS, NUM_ITEMS), spec.width)
        made[name] = torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
    return made


def inputs_of(
    model: Recommender,
    source: NeighbourhoodSource,
    tables: Mapping[str, torch.Tensor],
    features: Features,
    seeds: torch.Tensor | None,
    *,
    training: bool = True,
) -> Inputs:
    return inputs_for(
        model,
        source,
        tables,
        seeds,
        num_users=NUM_USERS,
        num_items=NUM_ITEMS,
        training=training,
        features=features,
        cold=torch.tensor([False] * 6 + [True]),
    )


def make_batch(*, negatives: bool = True, start: int = 0, stop: int = 6) -> Batch:
    """Six rows, the last of which is padding; weights are uneven. Users 1 and 3 are in none."""
    real = torch.tensor([1, 1, 1, 1, 1, 0], dtype=torch.float64)[start:stop]
    weight = torch.tensor([1, 2, 0.5, 1, 1.5, 0], dtype=torch.float64)[start:stop]
    drawn = torch.tensor([[3, 4], [6, 1], [5, 3], [6, 2], [2, 4], [1, 1]])
    return Batch(
        users=torch.tensor([0, 2, 0, 4, 2, 0])[start:stop],
        items=torch.tensor([0, 3, 2, 5, 4, 0])[start:stop],
        negatives=drawn[start:stop] if negatives else None,
        real=real,
        weight=weight,
    )


def own_rows(rows: torch.Tensor) -> torch.Tensor:
    return rows


@dataclass(frozen=True)
class Step:
    """A batch as the training step would hand it to a model."""

    seeds: torch.Tensor
    context: StepContext


def make_step(batch: Batch, gather: Callable[[torch.Tensor], torch.Tensor] = own_rows) -> Step:
    seeds, places = torch.unique(batch.nodes(NUM_USERS), return_inverse=True)
    held = torch.zeros(len(seeds), dtype=torch.float64)
    occurrences = held.index_add_(0, places[: 2 * batch.size], batch.real.repeat(2))  # negatives are not held
    context = StepContext(batch=batch, places=places, seed_weight=(occurrences > 0).double(), gather=gather, epoch=1)
    return Step(seeds=seeds, context=context)


def run_step(
    model: Recommender,
    source: NeighbourhoodSource,
    tables: Mapping[str, torch.Tensor],
    features: Features,
    step: Step,
) -> tuple[Encoded, Mapping[str, LossTerm]]:
    """A training step's forward pass; random numbers are those of one seed."""
    torch.manual_seed(17)
    inputs = inputs_of(model, source, tables, features, step.seeds)
    encoded = model.encode(inputs)
    return encoded, model.terms(encoded, inputs, step.context)


def gradients_of(
    model: torch.nn.Module, tables: Mapping[str, torch.Tensor], encoded: Encoded, terms: Mapping[str, LossTerm]
) -> dict[str, np.ndarray]:
    """Of all terms and a random direction of the vectors, with respect to every table and parameter."""
    towards = torch.randn(encoded.vectors.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    loss = (encoded.vectors * towards).sum()
    for term in terms.values():
        loss = loss + term.coefficient * term.total / term.weight.clamp(min=1e-12)
    variables = {**tables, **dict(model.named_parameters())}
    found = torch.autograd.grad(loss, list(variables.values()), allow_unused=True)
    return {
        name: np.zeros(0) if gradient is None else gradient.numpy()
        for name, gradient in zip(variables, found, strict=True)
    }


def assert_modes_agree(
    model: torch.nn.Module, relations: Mapping[str, Relation], features: Features, *, negatives: bool = True
) -> None:
    """Vectors, terms and every gradient are the same on the whole graph and on a sampled one with every neighbour."""
    step = make_step(make_batch(negatives=negatives))
    results = {}
    for mode in ("full", "sampled"):
        tables = make_tables(model)
        encoded, terms = run_step(model, source_over(relations, mode), tables, features, step)
        results[mode] = (encoded, terms, gradients_of(model, tables, encoded, terms))
    full, sampled = results["full"], results["sampled"]
    np.testing.assert_allclose(sampled[0].vectors.detach(), full[0].vectors.detach(), **TOLERANCE)
    np.testing.assert_allclose(sampled[0].ego.detach(), full[0].ego.detach(), **TOLERANCE)
    assert set(full[1]) == set(model.term_names)
    for name, term in full[1].items():
        np.testing.assert_allclose(sampled[1][name].total.detach(), term.total.detach(), **TOLERANCE)
        np.testing.assert_allclose(sampled[1][name].weight, term.weight, **TOLERANCE)
    for name, gradient in full[2].items():
        np.testing.assert_allclose(sampled[2][name], gradient, err_msg=name, **TOLERANCE)


def assert_everything_learns(
    model: torch.nn.Module, relations: Mapping[str, Relation], features: Features, *, negatives: bool = True
) -> None:
    """Vectors and terms together move every parameter and every table, by finite gradients."""
    step = make_step(make_batch(negatives=negatives))
    tables = make_tables(model)
    encoded, terms = run_step(model, source_over(relations), tables, features, step)
    for name, gradient in gradients_of(model, tables, encoded, terms).items():
        assert gradient.size and np.isfinite(gradient).all(), name
        assert np.abs(gradient).max() > 1e-6, name


def assert_seeds_are_rows_of_all(model: torch.nn.Module, relations: Mapping[str, Relation], features: Features) -> None:
    """At evaluation, some seeds have the rows that they have among all nodes, run after run."""
    model.eval()
    tables = make_tables(model)
    source = source_over(relations)
    seeds = torch.tensor([0, 3, 4, 6, 8, 11])
    everything = model.encode(inputs_of(model, source, tables, features, None, training=False))
    some = model.encode(inputs_of(model, source, tables, features, seeds, training=False))
    again = model.encode(inputs_of(model, source, tables, features, None, training=False))
    model.train()
    assert torch.equal(again.vectors, everything.vectors)
    assert torch.isfinite(everything.vectors).all()
    np.testing.assert_allclose(some.vectors.detach(), everything.vectors.detach()[seeds], **TOLERANCE)
    np.testing.assert_allclose(some.ego.detach(), everything.ego.detach()[seeds], **TOLERANCE)


def assert_ranks_add_up(
    model: torch.nn.Module, relations: Mapping[str, Relation], features: Features, *, negatives: bool = True
) -> None:
    """The terms of two ranks with half a batch each, gathering each other's rows, are those of the whole batch."""
    source, tables = source_over(relations), make_tables(model)
    _, whole = run_step(model, source, tables, features, make_step(make_batch(negatives=negatives)))
    halves = [make_batch(negatives=negatives, stop=3), make_batch(negatives=negatives, start=3)]
    sent: list[list[torch.Tensor]] = [[], []]
    for rank, half in enumerate(halves):

        def remember(rows: torch.Tensor, to: list[torch.Tensor] = sent[rank]) -> torch.Tensor:
            to.append(rows)
            return rows

        run_step(model, source, tables, features, make_step(half, remember))
    parts = []
    for half in halves:
        gathered = iter([torch.cat(rows) for rows in zip(*sent, strict=True)])

        def gather(rows: torch.Tensor, answers=gathered) -> torch.Tensor:
            return next(answers)

        parts.append(run_step(model, source, tables, features, make_step(half, gather))[1])
    for name, term in whole.items():
        np.testing.assert_allclose(
            sum(part[name].total.item() for part in parts), term.total.item(), err_msg=name, **TOLERANCE
        )
        np.testing.assert_allclose(
            sum(part[name].weight.item() for part in parts), term.weight.item(), err_msg=name, **TOLERANCE
        )
