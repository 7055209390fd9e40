"""Losses and the regulariser against numbers worked out by hand."""

from math import exp, log

import pytest
import torch

from braidrec.models.contract import Batch
from braidrec.objectives.bpr import BPR
from braidrec.objectives.rating_mse import RatingMSE
from braidrec.objectives.regulariser import half_squared_norm


def batch(rows: int, *, negatives: torch.Tensor | None = None, rating: torch.Tensor | None = None) -> Batch:
    one = torch.ones(rows)
    ids = torch.zeros(rows, dtype=torch.int64)
    return Batch(users=ids, items=ids, negatives=negatives, real=one, weight=one, rating=rating)


def test_bpr_is_minus_log_sigmoid_of_the_difference() -> None:
    users = torch.tensor([[1.0, 2.0], [0.5, -1.0]], dtype=torch.float64)
    items = torch.tensor([[3.0, 1.0], [2.0, 2.0]], dtype=torch.float64)
    negatives = torch.tensor([[[1.0, 1.0]], [[4.0, 0.0]]], dtype=torch.float64)
    rows = BPR().rows(users, items, negatives, batch(2))
    # Row 0: 5 − 3 = 2. Row 1: −1 − 2 = −3.
    assert rows.tolist() == pytest.approx([log(1 + exp(-2)), log(1 + exp(3))], rel=1e-12)


def test_bpr_takes_the_mean_over_a_rows_negatives() -> None:
    users = torch.tensor([[2.0]], dtype=torch.float64)
    items = torch.tensor([[1.0]], dtype=torch.float64)
    negatives = torch.tensor([[[0.0], [1.0], [3.0]]], dtype=torch.float64)
    rows = BPR().rows(users, items, negatives, batch(1))
    # Differences 2, 0 and −4.
    wanted = (log(1 + exp(-2)) + log(2) + log(1 + exp(4))) / 3
    assert rows.tolist() == pytest.approx([wanted], rel=1e-12)


def test_bpr_gradient_and_its_limits() -> None:
    """d/dx −log σ(x) = σ(x) − 1; finite for differences at which exp overflows."""
    for difference, slope in ((0.0, -0.5), (2.0, 1 / (1 + exp(-2)) - 1), (1000.0, 0.0), (-1000.0, -1.0)):
        item = torch.tensor([[difference]], dtype=torch.float64, requires_grad=True)
        loss = BPR().rows(torch.ones(1, 1, dtype=torch.float64), item, torch.zeros(1, 1, 1).double(), batch(1))
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert item.grad.item() == pytest.approx(slope, abs=1e-12)


def test_rating_error_is_squared_about_the_mean() -> None:
    objective = RatingMSE(mean=3.5)
    users = torch.tensor([[1.0, 1.0], [2.0, 0.0]], requires_grad=True)
    items = torch.tensor([[0.5, 0.5], [-1.0, 9.0]])
    rows = objective.rows(users, items, None, batch(2, rating=torch.tensor([5.0, 1.0])))
    # Predictions 4.5 and 1.5.
    assert rows.tolist() == pytest.approx([0.25, 0.25])
    rows.sum().backward()
    # 2 (prediction − rating) · item.
    assert users.grad.tolist() == [[-0.5, -0.5], [-1.0, 9.0]]
    assert objective.score_offset == 3.5
    assert objective.needs_rating and not objective.needs_negatives


def test_regulariser_counts_every_occurrence() -> None:
    # Rows (0, 2, negatives 3 and 2) and (1, 3, negatives 4 and 4): node 3 once as item and once as negative.
    ego = torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 0.0], [1.0, 1.0], [0.0, 4.0]])
    occurrences = torch.tensor([1.0, 1.0, 2.0, 2.0, 2.0])
    by_row = 0.5 * (5 + 9 + 2 + 9) + 0.5 * (0 + 2 + 16 + 16)
    assert float(half_squared_norm(ego, occurrences)) == by_row


def test_regulariser_gradient_is_the_embedding_for_each_occurrence() -> None:
    ego = torch.tensor([[1.5, -2.0], [1.0, 1.0]], requires_grad=True)
    half_squared_norm(ego, torch.tensor([3.0, 0.0])).backward()
    assert ego.grad.tolist() == [[4.5, -6.0], [0.0, 0.0]]
