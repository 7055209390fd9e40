"""SelfCF against dense matrices, torch's own cosine, and its gradient with the targets held fixed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from item_graph_world import (
    DIM,
    NUM_NODES,
    NUM_USERS,
    TOLERANCE,
    assert_everything_learns,
    assert_modes_agree,
    assert_ranks_add_up,
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

from braidrec.graph.relation import INTERACTIONS, TARGETS, Relation
from braidrec.graph.views import drop_edges
from braidrec.models.contract import Encoded
from braidrec.models.systems.selfcf import SelfCF

RELATIONS = make_relations(make_features())
RELATIONS[TARGETS] = drop_edges(RELATIONS[INTERACTIONS], rate=0.4, seed=2, view="targets")
VIEWS = ("dropout", "edge_dropout")


def make_model(**options) -> SelfCF:
    model = SelfCF(dim=DIM, initial_std=0.1, **{"rate": 0.0, "layers": 2, **options}).double()
    fill(model)
    return model


def mean_of_levels(relation: Relation, layers: int) -> np.ndarray:
    graph = dense_unweighted(relation)
    return sum(np.linalg.matrix_power(graph, layer) for layer in range(layers + 1)) / (layers + 1)


def predict(model: SelfCF, rows: torch.Tensor) -> torch.Tensor:
    (layer,) = model.predictor.layers
    return rows @ layer.weight.T + layer.bias


@pytest.mark.parametrize("layers", [1, 2])
def test_scores_take_both_directions(layers: int) -> None:
    model = make_model(layers=layers)
    table = make_tables(model)["id"]
    encoded = model.encode(inputs_of(model, source_over(RELATIONS), {"id": table}, {}, None))
    h = mean_of_levels(RELATIONS[INTERACTIONS], layers) @ table.detach().numpy()
    q = predict(model, torch.from_numpy(h)).detach().numpy()
    found = encoded.vectors.detach().numpy()
    for user in range(NUM_USERS):
        for item in range(NUM_USERS, NUM_NODES):
            one_way = float(q[user] @ h[item])
            wanted = one_way + float(h[user] @ q[item])
            assert abs(found[user] @ found[item] - wanted) < 1e-5
            assert abs(wanted - 2 * one_way) > 1e-4, "the directions differ"
    np.testing.assert_array_equal(encoded.ego.detach(), table.detach())


@pytest.mark.parametrize("view", VIEWS)
def test_term_and_its_gradients(view: str) -> None:
    """Gradients reach the predictions alone: with moving targets they would be others."""
    model = make_model(view=view)
    tables, step = make_tables(model), make_step(make_batch(negatives=False))
    encoded, terms = run_step(model, source_over(RELATIONS), tables, {}, step)
    batch = step.context.batch
    seen = RELATIONS[INTERACTIONS if view == "dropout" else TARGETS]
    h = torch.from_numpy(mean_of_levels(RELATIONS[INTERACTIONS], 2)) @ tables["id"]
    target = (torch.from_numpy(mean_of_levels(seen, 2)) @ tables["id"]).detach()
    q = predict(model, h)
    forth = 1 - F.cosine_similarity(q[batch.users], target[NUM_USERS + batch.items])
    back = 1 - F.cosine_similarity(q[NUM_USERS + batch.items], target[batch.users])
    wanted = ((forth + back) / 2 * batch.weight).sum() / batch.weight.sum()
    term = terms["bootstrap"]
    assert term.coefficient * (term.total / term.weight).item() == pytest.approx(wanted.item(), rel=1e-6)
    found = gradients_of(model, tables, Encoded(vectors=encoded.vectors * 0.0, ego=encoded.ego), terms)
    variables = {**tables, **dict(model.named_parameters())}
    for name, gradient in zip(variables, torch.autograd.grad(wanted, list(variables.values())), strict=True):
        np.testing.assert_allclose(found[name], gradient, err_msg=name, **TOLERANCE)


def test_the_views_are_different_targets() -> None:
    """Otherwise the two cases above would test the same."""
    values = []
    for view in VIEWS:
        model = make_model(view=view)
        step = make_step(make_batch(negatives=False))
        values.append(run_step(model, source_over(RELATIONS), make_tables(model), {}, step)[1]["bootstrap"].total)
    assert abs((values[0] - values[1]).item()) > 1e-3


def test_targets_are_dropped_out_and_predictions_are_not() -> None:
    model, step = make_model(rate=0.5), make_step(make_batch(negatives=False))
    tables = make_tables(model)
    seen = []
    model.dropout.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    plain, _ = run_step(make_model(), source_over(RELATIONS), tables, {}, step)
    encoded, _ = run_step(model, source_over(RELATIONS), tables, {}, step)
    assert torch.equal(encoded.vectors, plain.vectors)
    ((given, out),) = seen
    assert not given.requires_grad
    kept = out != 0
    assert kept.any() and not kept.all()
    torch.testing.assert_close(out[kept], 2 * given[kept])


@pytest.mark.parametrize("view", VIEWS)
def test_contract(view: str) -> None:
    """Sampled with every neighbour is the whole graph; two ranks are one; evaluation draws nothing."""
    model = make_model(view=view)
    assert_modes_agree(model, RELATIONS, {}, negatives=False)
    assert_everything_learns(model, RELATIONS, {}, negatives=False)
    assert_ranks_add_up(model, RELATIONS, {}, negatives=False)
    assert_seeds_are_rows_of_all(make_model(view=view, rate=0.5), RELATIONS, {})
