"""LATTICE against dense matrices whose learned part is made by a double loop over projected features."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from item_graph_world import (
    DIM,
    DIMS,
    NUM_USERS,
    TOLERANCE,
    K,
    assert_everything_learns,
    assert_modes_agree,
    assert_seeds_are_rows_of_all,
    dense_unweighted,
    fill,
    gradients_of,
    inputs_of,
    make_batch,
    make_features,
    make_relations,
    make_step,
    make_tables,
    run_step,
    source_over,
)
from learned_graph_oracle import dense_graph
from model_inputs import Features, fetch_from

from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.models import learned_item_graph
from braidrec.models.learned_item_graph import LEARNED
from braidrec.models.systems.lattice import Lattice

FEATURES = make_features()
RELATIONS = make_relations(FEATURES, weight="similarity")


def make_model(seed: int = 1, **options) -> Lattice:
    options = {"neighbours": K, "feature_dim": 5, "frozen_share": 0.4, **options}
    model = Lattice(dim=DIM, initial_std=0.1, dims=DIMS, **options).double()
    fill(model, seed)
    return model


def with_learned(model: Lattice, features: Features = FEATURES) -> Mapping[str, Relation]:
    fixed = {name: relation for name, relation in RELATIONS.items() if name.startswith("content/")}
    return {**RELATIONS, **model.learned_relations(fetch_from(features), fixed, num_users=NUM_USERS)}


def dense_vectors(model: Lattice, table: torch.Tensor, at_start: Lattice | None = None) -> torch.Tensor:
    interactions = torch.from_numpy(dense_unweighted(RELATIONS[INTERACTIONS]))
    levels = [torch.matrix_power(interactions, layer) @ table for layer in range(model.layers + 1)]
    added = (
        torch.matrix_power(dense_graph(model.graph, FEATURES, at_start and at_start.graph), model.item_layers) @ table
    )
    norms = added.detach().norm(dim=1)
    rows = [row / row.norm() if norm > 0 else row * 0 for row, norm in zip(added, norms, strict=True)]
    return sum(levels) / len(levels) + torch.stack(rows)


def assert_equals_dense(
    model: Lattice, relations: Mapping[str, Relation], at_start: Lattice | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of all nodes and the gradients of a random direction of them."""
    tables = make_tables(model)
    encoded = model.encode(inputs_of(model, source_over(relations), tables, FEATURES, None))
    wanted = dense_vectors(model, tables["id"], at_start)
    np.testing.assert_allclose(encoded.vectors.detach(), wanted.detach(), **TOLERANCE)
    found = gradients_of(model, tables, encoded, {})
    variables = {**tables, **dict(model.named_parameters())}
    towards = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    gradients = torch.autograd.grad((wanted * towards).sum(), list(variables.values()), allow_unused=True)
    for name, gradient in zip(variables, gradients, strict=True):
        wanted_gradient = torch.zeros_like(variables[name]) if gradient is None else gradient
        np.testing.assert_allclose(found[name], wanted_gradient, err_msg=name, rtol=0, atol=1e-5)
    return encoded.vectors, tables["id"]


@pytest.mark.parametrize(("layers", "item_layers"), [(2, 1), (1, 2), (1, 3)])
@pytest.mark.parametrize("frozen_share", [0.0, 0.4, 0.9])
def test_vectors_and_gradients(layers: int, item_layers: int, frozen_share: float) -> None:
    model = make_model(layers=layers, item_layers=item_layers, frozen_share=frozen_share)
    assert_equals_dense(model, with_learned(model))


def test_within_an_epoch_weights_move_and_neighbours_stay() -> None:
    start, model = make_model(), make_model()
    relations = with_learned(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.4 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    vectors, table = assert_equals_dense(model, relations, at_start=start)
    # Others than with the weights of the start, and than with the neighbours of now.
    assert (vectors - dense_vectors(start, table)).abs().max() > 1e-3
    assert (vectors - dense_vectors(model, table)).abs().max() > 1e-3


def test_the_learned_graph_counts() -> None:
    """Other projections find other vectors of items, and none of users, whatever the frozen graph is."""
    one, other = make_model(seed=1), make_model(seed=2)
    table = make_tables(one)["id"]
    with torch.no_grad():
        other.graph.modality_logits.copy_(one.graph.modality_logits)
        difference = (dense_vectors(one, table) - dense_vectors(other, table)).abs().amax(-1)
    assert difference[NUM_USERS:].max() > 0.01
    assert not difference[:NUM_USERS].any()


def test_an_item_without_modalities_keeps_what_behaviour_gives() -> None:
    model = make_model()
    tables = make_tables(model)
    encoded = model.encode(inputs_of(model, source_over(with_learned(model)), tables, FEATURES, None))
    interactions = torch.from_numpy(dense_unweighted(RELATIONS[INTERACTIONS]))
    mean = sum(torch.matrix_power(interactions, layer) @ tables["id"] for layer in range(3)) / 3
    added = (encoded.vectors - mean).norm(dim=1)
    np.testing.assert_allclose(added.detach(), [0.0] * NUM_USERS + [1.0] * 5 + [0.0, 1.0], rtol=0, atol=1e-6)


def test_learning_is_repeatable_however_items_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model()
    first = with_learned(model)[LEARNED]
    scale = model.graph._edges.scale.clone()
    monkeypatch.setattr(learned_item_graph, "_ITEMS_AT_ONCE", 2)
    second = with_learned(model)[LEARNED]
    np.testing.assert_array_equal(first.indptr, second.indptr)
    np.testing.assert_array_equal(first.indices, second.indices)
    assert torch.equal(scale, model.graph._edges.scale)
    assert not any(name.startswith("_edges") for name in model.state_dict()), "a checkpoint needs none of it"


def test_sampled_with_every_neighbour_is_the_whole_graph() -> None:
    model = make_model(item_layers=2)
    assert_modes_agree(model, with_learned(model), FEATURES)


def test_everything_learns() -> None:
    model = make_model()
    assert_everything_learns(model, with_learned(model), FEATURES)


def test_evaluation() -> None:
    model = make_model()
    assert_seeds_are_rows_of_all(model, with_learned(model), FEATURES)


def test_half_precision_is_for_training_only() -> None:
    model = Lattice(dim=DIM, initial_std=0.1, dims=DIMS, neighbours=K, dtype=torch.bfloat16)
    single = {name: (values.float(), present) for name, (values, present) in FEATURES.items()}
    source = source_over(with_learned(model, single))
    table = {"id": make_tables(model)["id"].detach().float()}
    rows = {}
    for training in (True, False):
        model.train(training)
        rows[training] = model.encode(inputs_of(model, source, table, single, None)).vectors.detach()
    exact = dense_vectors(model.double(), table["id"].double()).detach()
    np.testing.assert_allclose(rows[False], exact, rtol=0, atol=2e-6)
    assert 1e-4 < (rows[True] - exact).abs().max() < 3e-2


def test_graphs_that_are_not_the_last_learned_ones() -> None:
    model, step = make_model(), make_step(make_batch())
    tables = make_tables(model)
    stale = with_learned(make_model(neighbours=1))
    for relations in (stale, with_learned(model)):
        if relations is not stale:
            run_step(model, source_over(relations), tables, FEATURES, step)
        with pytest.raises(RuntimeError, match="learned_relations"):
            run_step(model, source_over(stale), tables, FEATURES, step)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": {}}, "dims is empty"),
        ({"neighbours": 0}, "neighbours=0 must be at least 1"),
        ({"item_layers": 0}, "item_layers=0 must be at least 1"),
        ({"frozen_share": 1.1}, r"frozen_share=1\.1 must be within \[0, 1\]"),
    ],
)
def test_what_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lattice(**{"dim": DIM, "initial_std": 0.1, "dims": DIMS, **options})
