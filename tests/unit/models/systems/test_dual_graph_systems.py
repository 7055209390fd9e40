"""DRAGON and DualGNN against a loop over nodes in numpy, and against themselves without each of their parts."""

from math import exp

import numpy as np
import pytest
import torch
from dense_oracles import ITEMS, USERS
from item_graph_world import (
    DIM,
    DIMS,
    NUM_ITEMS,
    NUM_NODES,
    NUM_USERS,
    TOLERANCE,
    WEIGHTS,
    assert_everything_learns,
    assert_modes_agree,
    assert_ranks_add_up,
    assert_seeds_are_rows_of_all,
    dense_content,
    dense_unweighted,
    fill,
    inputs_of,
    make_features,
    make_relations,
    make_tables,
    source_over,
)

from braidrec.graph.co_interaction import co_interaction_relation
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.systems.dragon import Dragon
from braidrec.models.systems.dual_graph import DualGraph
from braidrec.models.systems.dualgnn import DualGNN

NEIGHBOURS = 2
FEATURES = make_features()
RELATIONS = make_relations(FEATURES)
RELATIONS["co_interaction"] = co_interaction_relation(RELATIONS[INTERACTIONS], NUM_USERS, NEIGHBOURS, weight="softmax")
SYSTEMS = {"dragon": Dragon, "dualgnn": DualGNN}
PARTS = ("length 1", "levels", "shares", "user graph", "item graph")


def make_model(name: str, **options) -> DualGraph:
    model = SYSTEMS[name](dim=DIM, initial_std=0.1, dims=DIMS, **options).double()
    fill(model)
    return model


def perceptron(module: torch.nn.Module, row: np.ndarray) -> np.ndarray:
    first, _, second = module.layers
    h = first.weight.detach().numpy() @ row + first.bias.detach().numpy()
    h = np.where(h > 0, h, 0.01 * h)
    return second.weight.detach().numpy() @ h + second.bias.detach().numpy()


def dense_users() -> np.ndarray:
    """`[nodes, nodes]`: of every user the two who share most items, by a softmax of how many."""
    taken = [set(ITEMS[user == USERS].tolist()) for user in range(NUM_USERS)]
    whole = np.zeros((NUM_NODES, NUM_NODES))
    for user in range(NUM_USERS):
        counts = [(len(taken[user] & taken[other]), other) for other in range(NUM_USERS) if other != user]
        best = [pair for pair in sorted(counts, key=lambda pair: (-pair[0], pair[1])) if pair[0]][:NEIGHBOURS]
        total = sum(exp(count) for count, _ in best)
        for count, other in best:
            whole[user, other] = exp(count) / total
    return whole


def dense_items() -> np.ndarray:
    return sum(
        WEIGHTS[name] * dense_content(values.numpy(), present.numpy()) for name, (values, present) in FEATURES.items()
    )


def start_by_hand(model: DualGraph, preferences: np.ndarray, place: int, without: str | None) -> np.ndarray:
    """x of one modality, node by node."""
    values, present = FEATURES[model.content.modalities[place]]
    rows = []
    for node in range(NUM_NODES):
        if node < NUM_USERS:
            row = preferences[node, place * DIM : (place + 1) * DIM]
        elif present[node - NUM_USERS]:
            row = perceptron(model.content.projectors[place], values[node - NUM_USERS].numpy())
        else:
            row = model.content.missing[place].token.detach().numpy()
        rows.append(row if without == "length 1" else row / np.linalg.norm(row))
    return np.array(rows)


def by_hand(
    model: DualGraph, name: str, tables: dict[str, torch.Tensor], without: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Users' and items' vectors; `without` one of the parts."""
    preferences, a = tables["preference"].detach().numpy(), tables["share"].detach().numpy()
    graph = dense_unweighted(RELATIONS[INTERACTIONS])
    strands = []
    for place in range(len(DIMS)):
        x = start_by_hand(model, preferences, place, without)
        levels = [np.linalg.matrix_power(graph, layer) @ x for layer in range(model.layers + 1)]
        h = levels[-1] if without == "levels" else sum(levels)
        for user in range(NUM_USERS):
            share = exp(a[user, place]) / sum(exp(value) for value in a[user])
            h[user] *= 1 / len(DIMS) if without == "shares" else share
        strands.append(h)
    h = np.concatenate(strands, axis=1) if name == "dragon" else sum(strands)
    users, items = h[:NUM_USERS].copy(), h[NUM_USERS:].copy()
    if without != "user graph":
        users += (np.linalg.matrix_power(dense_users(), model.user_layers) @ h)[:NUM_USERS]
    if name == "dragon" and without != "item graph":
        items += (np.linalg.matrix_power(dense_items(), model.item_layers) @ h)[NUM_USERS:]
    return users, items


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dragon", {}),
        ("dragon", {"layers": 1, "item_layers": 2, "user_layers": 2}),
        ("dualgnn", {}),
        ("dualgnn", {"layers": 3, "user_layers": 2}),
    ],
)
def test_vectors(name: str, options: dict[str, int]) -> None:
    model = make_model(name, **options)
    tables = make_tables(model)
    encoded = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None))
    users, items = by_hand(model, name, tables)
    np.testing.assert_allclose(encoded.vectors[:NUM_USERS].detach(), users, **TOLERANCE)
    np.testing.assert_allclose(encoded.vectors[NUM_USERS:].detach(), items, **TOLERANCE)
    assert encoded.vectors.shape[1] == (DIM * len(DIMS) if name == "dragon" else DIM)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", SYSTEMS)
def test_every_part_counts(name: str, part: str) -> None:
    """Without it the oracle has other scores, so that the test above would fail."""
    model = make_model(name)
    tables = make_tables(model)
    (users, items), (other_users, other_items) = by_hand(model, name, tables), by_hand(model, name, tables, part)
    changed = float(np.abs(users @ items.T - other_users @ other_items.T).max())
    assert changed == 0.0 if (name, part) == ("dualgnn", "item graph") else changed > 1e-3


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_regulariser_sees_the_users_rows(name: str) -> None:
    model = make_model(name)
    tables = make_tables(model)
    ego = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None)).ego.detach()
    assert torch.equal(ego[:NUM_USERS], torch.cat([tables["preference"], tables["share"]], dim=1).detach())
    assert not ego[NUM_USERS:].any()


@pytest.mark.parametrize("name", SYSTEMS)
def test_contract(name: str) -> None:
    """Sampled with every neighbour is the whole graph; two ranks are one; everything learns; evaluation is exact."""
    for options in ({}, {"user_layers": 2}):
        model = make_model(name, **options)
        assert_modes_agree(model, RELATIONS, FEATURES)
        assert_everything_learns(model, RELATIONS, FEATURES)
        assert_ranks_add_up(model, RELATIONS, FEATURES)
        assert_seeds_are_rows_of_all(model, RELATIONS, FEATURES)


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_makes_no_sense_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="dims is empty"):
        SYSTEMS[name](dim=DIM, initial_std=0.1, dims={})
    with pytest.raises(ValueError, match="user_layers=0 must be at least 1"):
        SYSTEMS[name](dim=DIM, initial_std=0.1, dims=DIMS, user_layers=0)
    with pytest.raises(ValueError, match="item_layers=0 must be at least 1"):
        Dragon(dim=DIM, initial_std=0.1, dims=DIMS, item_layers=0)


def test_half_precision_is_for_training_alone() -> None:
    model = make_model("dragon", dtype=torch.bfloat16)
    tables = make_tables(model)
    trained = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None)).vectors.detach()
    model.eval()
    exact = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None)).vectors.detach()
    users, _ = by_hand(model, "dragon", tables)
    np.testing.assert_allclose(exact[:NUM_USERS], users, **TOLERANCE)
    assert 1e-5 < float((trained - exact).abs().max()) < 0.1 * float(exact.abs().max())
    assert len(exact) - NUM_USERS == NUM_ITEMS
