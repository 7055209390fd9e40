"""BM3 against dense matrices, torch's own cosine, and its gradient with the targets held fixed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from item_graph_world import (
    DIM,
    DIMS,
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

from braidrec.graph.relation import INTERACTIONS
from braidrec.models.contract import Encoded
from braidrec.models.systems.bm3 import BM3

FEATURES = make_features()
RELATIONS = make_relations(FEATURES)


def make_model(**options) -> BM3:
    model = BM3(dim=DIM, initial_std=0.1, dims=DIMS, **{"dropout": 0.0, "layers": 2, **options}).double()
    fill(model)
    return model


def linear(module: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    (layer,) = module.layers
    return rows @ layer.weight.T + layer.bias


def online(table: torch.Tensor, layers: int) -> torch.Tensor:
    """`mean_l Â^l E`, and once more `E` at items."""
    graph = dense_unweighted(RELATIONS[INTERACTIONS])
    mean = torch.from_numpy(sum(np.linalg.matrix_power(graph, layer) for layer in range(layers + 1)) / (layers + 1))
    is_item = (torch.arange(len(table)) >= NUM_USERS).double().unsqueeze(-1)
    return mean @ table + is_item * table


@pytest.mark.parametrize("layers", [1, 2])
def test_scores_use_the_predictor(layers: int) -> None:
    model = make_model(layers=layers)
    tables = make_tables(model)
    encoded = model.encode(inputs_of(model, source_over(RELATIONS), tables, FEATURES, None))
    h = online(tables["id"], layers)
    np.testing.assert_allclose(encoded.ego.detach(), h.detach(), **TOLERANCE)
    np.testing.assert_allclose(encoded.vectors.detach(), linear(model.predictor, h).detach(), **TOLERANCE)


def dense_terms(model: BM3, table: torch.Tensor) -> dict[str, torch.Tensor]:
    """Means of every term over the rows that count."""
    batch = make_batch()
    h = online(table, model.layers)
    u, i = h[batch.users], h[NUM_USERS + batch.items]
    q_u, q_i = linear(model.predictor, u), linear(model.predictor, i)

    def mean(prediction: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return ((1 - F.cosine_similarity(prediction, target.detach())) * weight).sum() / weight.sum()

    found = {"reconstruction": mean(q_u, i, batch.weight) + mean(q_i, u, batch.weight)}
    for place, name in enumerate(model.modalities):
        values, present = FEATURES[name]
        projected = linear(model.projectors[place], values)[batch.items]
        weight = batch.weight * present[batch.items].double()
        assert 0 < float(weight.sum()) < float(batch.weight.sum()), "somebody lacks it"
        prediction = linear(model.predictor, projected)
        found[f"inter_modal_{name}"] = mean(prediction, i, weight)
        found[f"intra_modal_{name}"] = mean(prediction, projected, weight)
    return found


def test_terms_and_their_gradients() -> None:
    """Gradients reach the predictions alone: with moving targets they would be others."""
    model = make_model(alignment_weight=0.7)
    tables, step = make_tables(model), make_step(make_batch(negatives=False))
    encoded, terms = run_step(model, source_over(RELATIONS), tables, FEATURES, step)
    wanted = dense_terms(model, tables["id"])
    assert set(wanted) == set(model.term_names)
    for name, value in wanted.items():
        assert (terms[name].total / terms[name].weight).item() == pytest.approx(value.item(), rel=1e-6)
        assert terms[name].coefficient == (1.0 if name == "reconstruction" else 0.7)
    nothing = Encoded(vectors=encoded.vectors * 0.0, ego=encoded.ego)
    found = gradients_of(model, tables, nothing, terms)
    variables = {**tables, **dict(model.named_parameters())}
    loss = sum(terms[name].coefficient * value for name, value in wanted.items())
    for name, gradient in zip(variables, torch.autograd.grad(loss, list(variables.values())), strict=True):
        np.testing.assert_allclose(found[name], gradient, err_msg=name, **TOLERANCE)


def test_targets_are_dropped_out_and_predictions_are_not() -> None:
    model, step = make_model(dropout=0.5), make_step(make_batch(negatives=False))
    tables = make_tables(model)
    seen = []
    model.dropout.register_forward_hook(lambda module, given, out: seen.append((given[0], out)))
    plain, _ = run_step(make_model(), source_over(RELATIONS), tables, FEATURES, step)
    encoded, _ = run_step(model, source_over(RELATIONS), tables, FEATURES, step)
    assert torch.equal(encoded.vectors, plain.vectors)
    assert len(seen) == 1 + len(DIMS)
    for given, out in seen:
        assert not given.requires_grad
        kept = out != 0
        assert kept.any() and not kept.all()
        torch.testing.assert_close(out[kept], 2 * given[kept])


def test_an_item_without_a_modality_moves_nothing_of_it() -> None:
    model, step = make_model(), make_step(make_batch(negatives=False))
    tables = make_tables(model)
    features = {name: (values.clone().requires_grad_(), present) for name, (values, present) in FEATURES.items()}
    _, terms = run_step(model, source_over(RELATIONS), tables, features, step)
    loss = sum(term.total for term in terms.values())
    for name, (values, present) in features.items():
        (gradient,) = torch.autograd.grad(loss, values, retain_graph=True)
        moved = gradient.abs().amax(-1) > 0
        in_batch = torch.zeros(7, dtype=torch.bool)
        in_batch[step.context.batch.items[:5]] = True
        assert torch.equal(moved, present & in_batch), name


def test_sampled_with_every_neighbour_is_the_whole_graph() -> None:
    assert_modes_agree(make_model(dropout=0.5), RELATIONS, FEATURES, negatives=False)


def test_everything_learns() -> None:
    assert_everything_learns(make_model(dropout=0.5), RELATIONS, FEATURES, negatives=False)


def test_two_ranks_are_one() -> None:
    assert_ranks_add_up(make_model(), RELATIONS, FEATURES, negatives=False)


def test_evaluation_draws_nothing() -> None:
    assert_seeds_are_rows_of_all(make_model(dropout=0.5), RELATIONS, FEATURES)


def test_it_needs_a_modality() -> None:
    with pytest.raises(ValueError, match="dims is empty"):
        BM3(dim=DIM, initial_std=0.1, dims={})
