"""FREEDOM against dense matrices and a loop over the rows of a batch."""

from dataclasses import replace
from math import exp, log1p

import numpy as np
import pytest
import torch
from item_graph_world import (
    DIM,
    DIMS,
    NUM_NODES,
    NUM_USERS,
    PRESENT,
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
    make_batch,
    make_features,
    make_relations,
    make_step,
    make_tables,
    run_step,
    source_over,
)

from braidrec.models.systems.freedom import Freedom

FEATURES = make_features()
RELATIONS = make_relations(FEATURES)


def make_model(**options) -> Freedom:
    model = Freedom(dim=DIM, initial_std=0.1, dims=DIMS, **{"modality_weight": 0.3, **options}).double()
    fill(model)
    return model


def dense_graph() -> np.ndarray:
    parts = [
        weight * dense_content(FEATURES[name][0].numpy(), FEATURES[name][1].numpy()) for name, weight in WEIGHTS.items()
    ]
    return sum(parts)


def by_hand(table: np.ndarray, interactions: str, layers: int, item_layers: int) -> np.ndarray:
    graph = dense_unweighted(RELATIONS[interactions])
    levels = [np.linalg.matrix_power(graph, layer) @ table for layer in range(layers + 1)]
    return sum(levels) / (layers + 1) + np.linalg.matrix_power(dense_graph(), item_layers) @ table


@pytest.mark.parametrize(("layers", "item_layers"), [(2, 1), (1, 2), (3, 3)])
@pytest.mark.parametrize(("training", "interactions"), [(True, "interactions~pruned"), (False, "interactions")])
def test_vectors(layers: int, item_layers: int, training: bool, interactions: str) -> None:
    model = make_model(layers=layers, item_layers=item_layers)
    tables = make_tables(model)
    encoded = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None, training=training))
    table = tables["id"].detach().numpy()
    wanted = by_hand(table, interactions, layers, item_layers)
    np.testing.assert_allclose(encoded.vectors.detach(), wanted, **TOLERANCE)
    np.testing.assert_array_equal(encoded.ego.detach(), table)
    # Neither the item–item graph nor the pruning is without effect on these nodes.
    other = "interactions" if training else "interactions~pruned"
    assert np.abs(wanted - by_hand(table, other, layers, item_layers)).max() > 0.05
    assert np.abs((np.linalg.matrix_power(dense_graph(), item_layers) @ table)[NUM_USERS:]).max() > 0.05


@pytest.mark.parametrize("negatives", [1, 2])
def test_the_terms_compare_projected_features_where_both_items_have_them(negatives: int) -> None:
    batch = make_batch()
    model, step = make_model(), make_step(replace(batch, negatives=batch.negatives[:, :negatives]))
    tables = make_tables(model)
    encoded, terms = run_step(model, source_over(RELATIONS), tables, FEATURES, step)
    vectors = np.zeros((NUM_NODES, DIM))
    vectors[step.seeds.numpy()] = encoded.vectors.detach().numpy()
    batch = step.context.batch
    assert model.modalities == ("image", "text")
    for place, name in enumerate(model.modalities):
        linear = model.projectors[place].layers[0]
        matrix = linear.weight.detach().numpy()
        total = count = 0.0
        for row in range(5):
            user, item = int(batch.users[row]), int(batch.items[row])
            for other in batch.negatives[row].tolist():
                if not (PRESENT[name][item] and PRESENT[name][other]):
                    continue
                values = FEATURES[name][0].numpy()
                scores = [float(vectors[user] @ (matrix @ values[which])) for which in (item, other)]
                share = float(batch.weight[row]) / negatives
                total += share * log1p(exp(scores[1] - scores[0]))
                count += share
        term = terms[f"bpr_{name}"]
        assert (term.total.item(), term.weight.item()) == pytest.approx((total, count), rel=1e-6)
        assert term.coefficient == 0.3
        assert 0 < count < float(batch.weight.sum()), "some pairs are left out, and not all"


def test_a_modality_that_no_item_of_the_batch_has() -> None:
    model, step = make_model(), make_step(make_batch())
    features = {**FEATURES, "text": (torch.zeros(7, 3, dtype=torch.float64), torch.zeros(7, dtype=torch.bool))}
    _, terms = run_step(model, source_over(RELATIONS), make_tables(model), features, step)
    assert (terms["bpr_text"].total.item(), terms["bpr_text"].weight.item()) == (0.0, 0.0)


def test_sampled_with_every_neighbour_is_the_whole_graph() -> None:
    assert_modes_agree(make_model(item_layers=2), RELATIONS, FEATURES)


def test_everything_learns() -> None:
    assert_everything_learns(make_model(), RELATIONS, FEATURES)


def test_two_ranks_are_one() -> None:
    assert_ranks_add_up(make_model(), RELATIONS, FEATURES)


def test_evaluation() -> None:
    assert_seeds_are_rows_of_all(make_model(), RELATIONS, FEATURES)


def test_half_precision_is_for_training_only() -> None:
    model = Freedom(dim=DIM, initial_std=0.1, dims=DIMS, dtype=torch.bfloat16)
    table = {"id": make_tables(model)["id"].detach().float()}
    rows = {}
    for training in (True, False):
        model.train(training)
        inputs = inputs_of(model, source_over(RELATIONS), table, FEATURES, None, training=False)
        rows[training] = model.encode(inputs).vectors
    exact = by_hand(table["id"].double().numpy(), "interactions", 2, 1)
    np.testing.assert_allclose(rows[False], exact, rtol=0, atol=2e-6)
    assert 1e-4 < np.abs(rows[True].numpy() - exact).max() < 3e-2


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="dims is empty"):
        Freedom(dim=DIM, initial_std=0.1, dims={})
    with pytest.raises(ValueError, match="item_layers=0 must be at least 1"):
        Freedom(dim=DIM, initial_std=0.1, dims=DIMS, item_layers=0)
    model, step = make_model(), make_step(make_batch(negatives=False))
    with pytest.raises(ValueError, match=r"objective\.loss\.kind"):
        run_step(model, source_over(RELATIONS), make_tables(model), FEATURES, step)
