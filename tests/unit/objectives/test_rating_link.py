"""Ratings between bounds: loss by hand, gradient by finite differences, and what evaluation makes of scores."""

from math import exp

import numpy as np
import pytest
import torch

from braidrec.evaluation.ranker import VectorRanker, predicted_ratings
from braidrec.models.contract import Batch
from braidrec.objectives.rating_mse import RatingMSE

LOW, HIGH, MEAN = 1.0, 5.0, 3.6
RATINGS = [5.0, 1.0, 4.0]


def batch() -> Batch:
    ones = torch.ones(3, dtype=torch.float64)
    three = torch.arange(3)
    rating = torch.tensor(RATINGS, dtype=torch.float64)
    return Batch(users=three, items=three, negatives=None, real=ones, weight=ones, rating=rating)


def test_loss_and_gradient() -> None:
    loss = RatingMSE(mean=MEAN, bounds=(LOW, HIGH))
    generator = torch.Generator().manual_seed(0)
    users, items = (torch.randn(3, 4, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    found = loss.rows(users, items, None, batch())
    offset = np.log((MEAN - LOW) / (HIGH - MEAN))
    for row in range(3):
        score = float(users[row].detach() @ items[row].detach()) + offset
        predicted = LOW + (HIGH - LOW) / (1 + exp(-score))
        assert found[row].item() == pytest.approx((predicted - RATINGS[row]) ** 2, rel=1e-12)
    assert torch.autograd.gradcheck(lambda u, i: loss.rows(u, i, None, batch()), (users, items))


def test_a_score_of_nothing_is_the_mean() -> None:
    loss = RatingMSE(mean=MEAN, bounds=(LOW, HIGH))
    nothing = torch.zeros(3, 4, dtype=torch.float64)
    wanted = [(MEAN - rating) ** 2 for rating in RATINGS]
    np.testing.assert_allclose(loss.rows(nothing, nothing, None, batch()), wanted)


def test_evaluation_undoes_the_link() -> None:
    ones = torch.ones(1, 2)
    scores = np.array([-800.0, 0.0, 800.0])
    np.testing.assert_allclose(predicted_ratings(VectorRanker(ones, ones, 0.0, (LOW, HIGH)), scores), [1.0, 3.0, 5.0])
    np.testing.assert_array_equal(predicted_ratings(VectorRanker(ones, ones), scores), scores)


@pytest.mark.parametrize("bounds", [(1.0, MEAN), (MEAN, 5.0), (5.0, 1.0)])
def test_bounds_that_do_not_hold_the_mean_are_refused(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="must lie around the mean rating"):
        RatingMSE(mean=MEAN, bounds=bounds)
