"""One step in one process, against the same step written out row by row."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from step_cases import (
    FIRST,
    NUM_USERS,
    STEPS,
    Case,
    by_hand,
    make_step,
    make_table,
    mixing_matrix,
    propagation_matrix,
    some_rows,
    train,
)

from braidrec.data.negatives import NegativeSampler
from braidrec.errors import DivergedError
from braidrec.graph.build import build_interactions
from braidrec.training.step import Position

EVERY_STEP = pytest.mark.parametrize("case", STEPS.values(), ids=STEPS.keys())
# Degrees' roots are kept in fp32.
TOLERANCE = {"rtol": 1e-6, "atol": 1e-6}


@EVERY_STEP
def test_losses_gradient_and_update(case: Case) -> None:
    """With padding, uneven weights and a weight of zero."""
    rows = some_rows()
    before = make_table(case).weight.detach().numpy().copy()
    sums, gradient = by_hand(case, before, rows)
    seen = train(case, [rows])
    np.testing.assert_allclose(seen["losses"][0], [sums["loss"], sums["regulariser"]], rtol=1e-6)
    np.testing.assert_allclose(seen["weights"][0], [sums["weight"], sums["real"]], rtol=1e-6)
    np.testing.assert_allclose(seen["gradients"][0], gradient, **TOLERANCE)
    np.testing.assert_allclose(seen["tables"][0], before - gradient, **TOLERANCE)


@pytest.mark.parametrize(
    ("case", "optimizer"),
    [
        pytest.param(case, optimizer, id=f"{name}, {optimizer}")
        for name, case in STEPS.items()
        for optimizer in ("sgd", "adam", "adagrad", "sparse_adam")
        # Full propagation gives every row a gradient, which sparse Adam does not take.
        if optimizer != "sparse_adam" or case.model != "lightgcn" or case.mode != "full"
    ],
)
def test_padding_counts_nothing(case: Case, optimizer: str) -> None:
    """What stands in the padding, and how much of it there is, changes nothing: not the momentum's work either."""
    case = replace(case, optimizer=optimizer)
    first, second = some_rows(1, real=6, padding=0), some_rows(2, real=4, padding=0)
    wanted = train(case, [first, second])
    for user, item, amount in ((0, 0, 4), (3, 6, 1), (2, 1, 9)):
        filler = {"user": user, "item": item, "rating": 99.0, "weight": 7.0, "real": 0.0}
        padded = {
            name: np.concatenate([values, np.full(amount, filler[name], values.dtype)])
            for name, values in second.items()
        }
        seen = train(case, [first, padded])
        np.testing.assert_allclose(seen["losses"][1], wanted["losses"][1], rtol=1e-12)
        np.testing.assert_allclose(seen["weights"][1], wanted["weights"][1], rtol=1e-12)
        np.testing.assert_allclose(seen["tables"][1], wanted["tables"][1], rtol=1e-9, atol=1e-12)


@EVERY_STEP
def test_a_batch_of_padding_alone(case: Case) -> None:
    seen = train(case, [some_rows(real=0, padding=4)])
    assert seen["losses"][0].tolist() == [0.0, 0.0]
    assert seen["weights"][0].tolist() == [0.0, 0.0]
    np.testing.assert_array_equal(seen["tables"][0], make_table(case).weight.detach().numpy())


def test_weights_default_to_one_a_row() -> None:
    rows = some_rows()
    unweighted = {name: values for name, values in rows.items() if name != "weight"}
    ones = {**rows, "weight": rows["real"]}
    left, right = train(Case(), [unweighted]), train(Case(), [ones])
    np.testing.assert_array_equal(left["tables"][0], right["tables"][0])
    assert left["weights"][0].tolist() == [7.0, 7.0]


def test_clipping_bounds_the_update() -> None:
    """SGD with rate 1: the table moves by the clipped gradient."""
    for case in (Case(gradient_clip=0.01), Case(model="lightgcn", gradient_clip=0.01)):
        before = make_table(case).weight.detach().numpy()
        moved = train(case, [some_rows()])["tables"][0] - before
        _, gradient = by_hand(case, before, some_rows())
        np.testing.assert_allclose(moved, -gradient * 0.01 / np.linalg.norm(gradient), rtol=1e-3, atol=1e-7)


def test_excluded_targets_leave_the_neighbourhood() -> None:
    """The batch's own edges vanish in both directions; degrees stay. Padding (user 0, item 0) excludes nothing."""
    case = Case(model="lightgcn", mode="sampled", exclude_targets=True)
    rows = some_rows(8)
    real = rows["real"] == 1
    targets = set(zip(rows["user"][real].tolist(), rows["item"][real].tolist(), strict=True))
    assert (0, 0) not in targets and len(targets) < 10
    adjacent = propagation_matrix()
    for user, item in targets:
        adjacent[user, NUM_USERS + item] = adjacent[NUM_USERS + item, user] = 0.0
    mixing = mixing_matrix(case, adjacent)
    before = make_table(case).weight.detach().numpy()
    sums, gradient = by_hand(case, before, rows, mixing)
    seen = train(case, [rows])
    np.testing.assert_allclose(seen["losses"][0], [sums["loss"], sums["regulariser"]], rtol=1e-6)
    np.testing.assert_allclose(seen["gradients"][0], gradient, **TOLERANCE)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_update(poison: float) -> None:
    case = Case(model="mf_biases", loss="rating_mse")
    step, table = make_step(case)
    before = table.weight.detach().clone()
    rows = some_rows()
    rows = {**rows, "rating": np.where(np.arange(10) == 2, poison, rows["rating"]).astype(np.float32)}
    with pytest.raises(DivergedError, match=r"^epoch 4, step 17: loss=(nan|inf) before the update; .*learning_rate"):
        step.run(rows, Position(epoch=4, step=17, global_step=517))
    assert torch.equal(table.weight, before)


def test_the_term_that_diverged_is_named() -> None:
    """Only the embedding of an item that is no one's positive overflows: the loss is still a number."""
    step, table = make_step(Case(regulariser=1.0))
    with torch.no_grad():
        table.weight[:NUM_USERS] = 0.0
        table.weight[NUM_USERS:] = 1e200
    with pytest.raises(DivergedError, match=r"epoch 1, step 0: regulariser=inf before"):
        step.run(some_rows(padding=0), FIRST)


def test_a_step_goes_on_after_one_that_was_refused() -> None:
    """Rows fetched for the refused step must not reach the next one's gradient."""
    case = Case(model="mf_biases", loss="rating_mse")
    step, table = make_step(case)
    rows = some_rows()
    with pytest.raises(DivergedError):
        step.run({**rows, "rating": np.full(10, np.nan, np.float32)}, FIRST)
    step.run(rows, FIRST)
    np.testing.assert_array_equal(table.weight.detach().numpy(), train(case, [rows])["tables"][0])


def test_negatives_are_a_function_of_the_position() -> None:
    step, _ = make_step(Case(per_positive=4))
    relation = build_interactions(np.arange(NUM_USERS), np.zeros(NUM_USERS, np.int64), NUM_USERS, 7)
    step.negatives = NegativeSampler(relation, NUM_USERS)
    places = [Position(epoch=epoch, step=number, global_step=0) for epoch in (1, 2) for number in (0, 1)]
    drawn = [tuple(step.batch(some_rows(), at).negatives.flatten().tolist()) for at in places]
    again = [tuple(step.batch(some_rows(), at).negatives.flatten().tolist()) for at in places]
    assert drawn == again
    assert len(set(drawn)) == 4
    step.context.rank = 1
    assert tuple(step.batch(some_rows(), places[0]).negatives.flatten().tolist()) not in drawn


def test_input_nodes_count_the_rows_that_are_fetched() -> None:
    rows = {**some_rows(real=2, padding=0), "user": np.array([1, 1]), "item": np.array([3, 1])}
    # User 1, items 3 and 1, and the user's two negatives, of which one is item 1 + 3 and the other 5.
    assert make_step(Case())[0].run(rows, FIRST).input_nodes == 5
    assert make_step(Case(model="lightgcn"))[0].run(rows, FIRST).input_nodes == 12
