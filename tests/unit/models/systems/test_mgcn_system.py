"""MGCN against a loop over nodes in numpy, its contrast against a loop over the rows of a batch."""

from math import exp, log

import numpy as np
import pytest
import torch
from item_graph_world import (
    DIM,
    DIMS,
    NUM_ITEMS,
    NUM_NODES,
    NUM_USERS,
    TOLERANCE,
    assert_everything_learns,
    assert_modes_agree,
    assert_ranks_add_up,
    assert_seeds_are_rows_of_all,
    dense_content,
    dense_unweighted,
    fill,
    inputs_of,
    make_batch,
    make_features,
    make_relations,
    make_step,
    make_tables,
    run_step,
    source_over,
)

from braidrec.graph.relation import INTERACTIONS
from braidrec.models.systems.mgcn import MGCN

FEATURES = make_features()
RELATIONS = make_relations(FEATURES, weight="similarity")
PARTS = ("purifier", "attention", "preference", "item graph")


def make_model(**options) -> MGCN:
    model = MGCN(dim=DIM, initial_std=0.1, dims=DIMS, **{"contrast_weight": 0.3, **options}).double()
    fill(model)
    return model


def linear(module: torch.nn.Module, row: np.ndarray) -> np.ndarray:
    (layer,) = module.layers
    return layer.weight.detach().numpy() @ row + layer.bias.detach().numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def spread_by_hand(model: MGCN, table: np.ndarray, place: int, without: str | None) -> np.ndarray:
    """z of one modality, all nodes."""
    name = model.modalities[place]
    values, present = FEATURES[name]
    purified = np.zeros((NUM_NODES, DIM))
    for item in range(NUM_ITEMS):
        gate = sigmoid(linear(model.purifiers[place], linear(model.projectors[place], values[item].numpy())))
        purified[NUM_USERS + item] = table[NUM_USERS + item] * (1.0 if without == "purifier" else gate)
    content = dense_content(values.numpy(), present.numpy(), "similarity")
    if without != "item graph":
        purified = np.linalg.matrix_power(content, model.item_layers) @ purified
    interactions = dense_unweighted(RELATIONS[INTERACTIONS])
    z = np.zeros((NUM_NODES, DIM))
    z[NUM_USERS:] = purified[NUM_USERS:]
    z[:NUM_USERS] = interactions[:NUM_USERS, NUM_USERS:] @ purified[NUM_USERS:]
    return z


def by_hand(model: MGCN, table: np.ndarray, without: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Behaviour and side, node by node; `without` one of the parts."""
    interactions = dense_unweighted(RELATIONS[INTERACTIONS])
    levels = [np.linalg.matrix_power(interactions, layer) @ table for layer in range(model.layers + 1)]
    behaviour = sum(levels) / len(levels)
    z = [spread_by_hand(model, table, place, without) for place in range(len(model.modalities))]
    inner, query = model.attention.inner, model.attention.query.weight.detach().numpy()[0]
    side = np.zeros_like(behaviour)
    for node in range(NUM_NODES):
        there = [place for place in range(len(z)) if z[place][node].any()]
        logits = [
            query @ np.tanh(inner.weight.detach().numpy() @ z[place][node] + inner.bias.detach().numpy())
            for place in there
        ]
        if without == "attention":
            logits = [0.0] * len(there)
        shares = np.exp(logits) / np.exp(logits).sum()
        shared = sum((share * z[place][node] for share, place in zip(shares, there, strict=True)), np.zeros(DIM))
        side[node] = shared
        for place in there:
            gate = sigmoid(linear(model.preferences[place], behaviour[node]))
            side[node] += (1.0 if without == "preference" else gate) * (z[place][node] - shared)
    return behaviour, side / (len(z) + 1)


@pytest.mark.parametrize(("layers", "item_layers"), [(2, 1), (1, 2)])
def test_vectors(layers: int, item_layers: int) -> None:
    model = make_model(layers=layers, item_layers=item_layers)
    tables = make_tables(model)
    encoded = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None))
    behaviour, side = by_hand(model, tables["id"].detach().numpy())
    np.testing.assert_allclose(encoded.outputs["behaviour"].detach(), behaviour, **TOLERANCE)
    np.testing.assert_allclose(encoded.outputs["side"].detach(), side, **TOLERANCE)
    np.testing.assert_allclose(encoded.vectors.detach(), behaviour + side, **TOLERANCE)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_counts(part: str) -> None:
    """Without it the oracle has other vectors, users' and items', so that the test above would fail."""
    model = make_model()
    table = make_tables(model)["id"].detach().numpy()
    difference = np.abs(by_hand(model, table)[1] - by_hand(model, table, without=part)[1]).max(-1)
    assert difference[:NUM_USERS].max() > 1e-3
    assert difference[NUM_USERS:].max() > 1e-3


def test_who_has_nothing_in_any_modality_is_behaviour_alone() -> None:
    """Item 5 lacks both; user 4 has only that item; user 3 has none."""
    model = make_model()
    encoded = model.encode(inputs_of(model, source_over(RELATIONS), make_tables(model), FEATURES, None))
    nothing = [3, 4, NUM_USERS + 5]
    assert not encoded.outputs["side"][nothing].any()
    assert encoded.outputs["side"].any(-1).sum() == NUM_NODES - len(nothing)


def contrast_by_hand(first: list[np.ndarray], second: list[np.ndarray], nodes: list[int], temperature: float) -> float:
    """Sum over the rows; rows of the same node are no negatives."""

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        norms = np.linalg.norm(a) * np.linalg.norm(b)
        return float(a @ b / norms) if norms else 0.0

    total = 0.0
    for row, node in enumerate(nodes):
        own = exp(cosine(first[row], second[row]) / temperature)
        others = [
            exp(cosine(first[row], second[place]) / temperature) for place in range(len(nodes)) if nodes[place] != node
        ]
        total += -log(own / (own + sum(others)))
    return total


def test_terms() -> None:
    model, step = make_model(temperature=0.4), make_step(make_batch())
    tables = make_tables(model)
    _, terms = run_step(model, source_over(RELATIONS), tables, FEATURES, step)
    behaviour, side = by_hand(model, tables["id"].detach().numpy())
    batch = step.context.batch
    for name, nodes in (("contrast_users", batch.users), ("contrast_items", batch.items + NUM_USERS)):
        real = nodes[:5].tolist()
        wanted = contrast_by_hand([side[n] for n in real], [behaviour[n] for n in real], real, 0.4)
        assert (terms[name].total.item(), terms[name].weight.item()) == pytest.approx((wanted, 5.0), rel=1e-5)
        assert terms[name].coefficient == 0.3


def test_sampled_with_every_neighbour_is_the_whole_graph() -> None:
    assert_modes_agree(make_model(item_layers=2), RELATIONS, FEATURES)


def test_everything_learns() -> None:
    assert_everything_learns(make_model(), RELATIONS, FEATURES)


def test_two_ranks_are_one() -> None:
    assert_ranks_add_up(make_model(), RELATIONS, FEATURES)


def test_evaluation() -> None:
    assert_seeds_are_rows_of_all(make_model(), RELATIONS, FEATURES)


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="dims is empty"):
        MGCN(dim=DIM, initial_std=0.1, dims={})
    with pytest.raises(ValueError, match="item_layers=0 must be at least 1"):
        MGCN(dim=DIM, initial_std=0.1, dims=DIMS, item_layers=0)
    with pytest.raises(ValueError, match="temperature=0 must be"):
        MGCN(dim=DIM, initial_std=0.1, dims=DIMS, temperature=0)
