"""A global batch split over two gloo processes has the losses and gradients that it has in one, in fp64."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from gather_tasks import (
    DIM,
    LOSSES,
    NUM_ITEMS,
    Slice,
    gather_and_weigh,
    gather_integers,
    loss_and_gradients,
    run_loss,
)

from braidrec.objectives.gather import RankGather, own_rows
from braidrec.training.context import SingleProcess

pytestmark = pytest.mark.slow

SIZE = 9
SPLITS = {"uneven": 6, "all and none": SIZE, "none and all": 0, "a rank of padding": 7}


def batch() -> Slice:
    """Nodes occur twice, on one rank and across ranks; the last two rows are padding."""
    random = np.random.default_rng(3)
    users = np.array([1, 2, 1, 3, 0, 2, 3, 0, 0])
    items = np.array([2, 2, 4, 5, 3, 4, 1, 0, 0])
    assert items.max() < NUM_ITEMS
    weight = np.array([1.0, 0.5, 2.0, 1.0, 1.0, 0.25, 1.0, 0.0, 0.0])
    views = random.normal(size=(2, SIZE, DIM))
    return Slice(first=views[0], second=views[1], users=users, items=items, weight=weight)


def cut(whole: Slice, start: int, stop: int) -> Slice:
    return Slice(**{field.name: getattr(whole, field.name)[start:stop] for field in fields(Slice)})


@pytest.mark.parametrize("at", SPLITS.values(), ids=SPLITS.keys())
@pytest.mark.parametrize("name", LOSSES)
def test_two_ranks_have_the_loss_of_one(pair: Any, name: str, at: int) -> None:
    whole = batch()
    loss, first, second = run_loss(LOSSES[name](own_rows), whole)
    assert loss > 0.1 and np.abs(first).max() > 1e-3 and np.abs(second).max() > 1e-3
    ranks = pair.run(loss_and_gradients, (name, name), (cut(whole, 0, at), cut(whole, at, SIZE)))
    assert ranks[0][0] + ranks[1][0] == pytest.approx(loss, rel=1e-13)
    np.testing.assert_allclose(np.concatenate([rank[1] for rank in ranks]), first, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(np.concatenate([rank[2] for rank in ranks]), second, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_halves_that_do_not_gather_have_another_loss(name: str) -> None:
    """Otherwise the equality above would say nothing."""
    whole = batch()
    loss, _, _ = run_loss(LOSSES[name](own_rows), whole)
    apart = sum(run_loss(LOSSES[name](own_rows), cut(whole, *ends))[0] for ends in ((0, 6), (6, SIZE)))
    assert abs(apart - loss) > 1e-3


def test_gradients_of_all_ranks_arrive_at_the_owner(pair: Any) -> None:
    rows = (np.arange(6.0).reshape(3, 2), np.full((1, 2), 7.0))
    upstream = (np.arange(8.0).reshape(4, 2), np.full((4, 2), 100.0))
    results = pair.run(gather_and_weigh, rows, upstream)
    for rank, own in enumerate((slice(0, 3), slice(3, 4))):
        gathered, gradient = results[rank]
        np.testing.assert_array_equal(gathered, np.concatenate(rows))
        np.testing.assert_array_equal(gradient, (upstream[0] + upstream[1])[own])


def test_ids_are_gathered_without_gradient(pair: Any) -> None:
    ids = (np.array([[5, 1], [2, 0]]), np.array([[3, 1]]))
    for gathered in pair.run(gather_integers, ids):
        np.testing.assert_array_equal(gathered, np.concatenate(ids))
        assert gathered.dtype == np.int64


def test_one_process_has_its_own_rows() -> None:
    rows = torch.arange(6.0).reshape(3, 2).requires_grad_()
    for gather in (own_rows, RankGather(SingleProcess())):
        rows.grad = None
        gathered = gather(rows)
        assert torch.equal(gathered, rows)
        (gathered**2).sum().backward()
        assert torch.equal(rows.grad, 2 * rows.detach())
