"""Losses on a positive and its sampled negatives, against sums worked out pair by pair."""

from collections.abc import Callable
from math import exp, log

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from loss_oracles import Row, batch_of, dot, minus_log_share, random_vectors
from sklearn.metrics import hinge_loss, log_loss

from braidrec.models.contract import Batch
from braidrec.objectives.bpr import BPR
from braidrec.objectives.contract import RowLoss
from braidrec.objectives.cross_entropy import CrossEntropy
from braidrec.objectives.hinge import PairwiseHinge
from braidrec.objectives.implicit_mse import ImplicitMSE
from braidrec.objectives.pointwise_hinge import PointwiseHinge
from braidrec.objectives.sampled_softmax import SampledSoftmax

B, N, D, NUM_ITEMS = 6, 4, 5, 9
PROBABILITIES = torch.tensor([0.3, 0.2, 0.05, 0.05, 0.1, 0.1, 0.15, 0.05, 0.0], dtype=torch.float64)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def from_log_loss(positive: float, negative: list[float]) -> float:
    """scikit-learn's, on the probabilities."""
    sigmoid = [1 / (1 + exp(-score)) for score in [positive, *negative]]
    of_negatives = log_loss([0] * len(negative), sigmoid[1:], labels=[0, 1])
    return float(log_loss([1], sigmoid[:1], labels=[0, 1]) + of_negatives)


def from_hinge_loss(positive: float, negative: list[float]) -> float:
    """scikit-learn's, on labels 1 and −1: a mean in which the positive weighs as much as all negatives."""
    count = len(negative)
    weights = [1.0] + [1 / count] * count
    return float(2 * hinge_loss([1] + [-1] * count, [positive, *negative], sample_weight=weights))


def from_margin_ranking(positive: float, negative: list[float]) -> float:
    """torch's, of every pair."""
    scores = torch.tensor(negative, dtype=torch.float64)
    return float(F.margin_ranking_loss(torch.full_like(scores, positive), scores, torch.ones_like(scores), margin=0.7))


Oracle = Callable[[float, list[float], list[int]], float]
LOSSES: dict[str, tuple[RowLoss, Oracle]] = {
    "implicit mse": (ImplicitMSE(), lambda p, n, ids: (1 - p) ** 2 + mean([x**2 for x in n])),
    "cross-entropy": (CrossEntropy(), lambda p, n, ids: from_log_loss(p, n)),
    "pairwise hinge": (PairwiseHinge(margin=0.7), lambda p, n, ids: from_margin_ranking(p, n)),
    "pointwise hinge": (PointwiseHinge(), lambda p, n, ids: from_hinge_loss(p, n)),
    "softmax": (
        SampledSoftmax(temperature=0.4, log_q=None),
        lambda p, n, ids: minus_log_share(p / 0.4, [x / 0.4 for x in n]),
    ),
    "corrected softmax": (
        SampledSoftmax(temperature=0.4, log_q=PROBABILITIES.log()),
        lambda p, n, ids: minus_log_share(
            p / 0.4, [x / 0.4 - log(N * float(PROBABILITIES[j])) for x, j in zip(n, ids, strict=True)]
        ),
    ),
}


def example() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Batch]:
    ids = torch.randint(0, NUM_ITEMS - 1, (B, N), generator=torch.Generator().manual_seed(4))
    vectors = (random_vectors(1, B, D), random_vectors(2, B, D), random_vectors(3, B, N, D))
    return *vectors, batch_of([0] * B, [0] * B, negatives=ids)


@pytest.mark.parametrize(("loss", "oracle"), LOSSES.values(), ids=LOSSES.keys())
def test_value_of_every_row(loss: RowLoss, oracle: Oracle) -> None:
    users, items, negatives, batch = example()
    rows = loss.rows(users, items, negatives, batch)

    def wanted(row: int) -> float:
        user: Row = users[row].tolist()
        scores = [dot(user, vector) for vector in negatives[row].tolist()]
        return oracle(dot(user, items[row].tolist()), scores, batch.negatives[row].tolist())

    assert rows.shape == (B,)
    assert rows.tolist() == pytest.approx([wanted(row) for row in range(B)], rel=1e-10)
    assert loss.needs_negatives and not loss.needs_rating and loss.score_offset == 0.0


@pytest.mark.parametrize("loss", [loss for loss, _ in LOSSES.values()], ids=LOSSES.keys())
def test_gradient_is_that_of_finite_differences(loss: RowLoss) -> None:
    users, items, negatives, batch = example()
    assert torch.autograd.gradcheck(lambda u, i, j: loss.rows(u, i, j, batch), (users, items, negatives))


@pytest.mark.parametrize("loss", [loss for loss, _ in LOSSES.values()], ids=LOSSES.keys())
def test_finite_for_large_scores_and_zero_vectors(loss: RowLoss) -> None:
    """fp32, scores of ±900 and 0, where exp overflows and padding may stand."""
    ids = torch.zeros(3, 2, dtype=torch.int64)
    users = torch.tensor([[30.0], [-30.0], [0.0]], requires_grad=True)
    items = torch.tensor([[30.0], [30.0], [0.0]], requires_grad=True)
    negatives = torch.tensor([[[-30.0], [30.0]], [[-30.0], [30.0]], [[0.0], [0.0]]], requires_grad=True)
    rows = loss.rows(users, items, negatives, batch_of([0] * 3, [0] * 3, negatives=ids))
    rows.sum().backward()
    assert torch.isfinite(rows).all() and (rows >= 0).all()
    for vectors in (users, items, negatives):
        assert torch.isfinite(vectors.grad).all()


def test_hinges_rest_beyond_their_margins() -> None:
    users, items = torch.ones(1, 1), torch.full((1, 1), 2.0)
    batch = batch_of([0], [0], negatives=torch.zeros(1, 1, dtype=torch.int64))
    for score, pairwise, pointwise in ((0.5, 0.0, 1.5), (1.75, 0.75, 2.75), (-1.25, 0.0, 0.0)):
        negatives = torch.full((1, 1, 1), score)
        assert PairwiseHinge(margin=1.0).rows(users, items, negatives, batch).tolist() == [pairwise]
        assert PointwiseHinge().rows(users, items, negatives, batch).tolist() == [pointwise]


def test_softmax_with_one_negative_is_bpr() -> None:
    users, items, negatives, batch = example()
    one = batch_of([0] * B, [0] * B, negatives=batch.negatives[:, :1])
    softmax = SampledSoftmax(temperature=1.0, log_q=None).rows(users, items, negatives[:, :1], one)
    torch.testing.assert_close(softmax, BPR().rows(users, items, negatives[:, :1], one))


def test_corrected_denominator_is_that_of_the_whole_catalogue() -> None:
    """Its mean over all draws: one row for each item that can be drawn, weighted by how likely that is."""
    drawable = PROBABILITIES > 0
    q = PROBABILITIES[drawable]
    catalogue = random_vectors(7, NUM_ITEMS, D)[drawable].detach()
    user, item = random_vectors(8, D).detach(), random_vectors(9, D).detach()
    ids = torch.arange(len(q)).unsqueeze(1)
    loss = SampledSoftmax(temperature=1.0, log_q=PROBABILITIES.log())
    rows = loss.rows(
        user.expand(len(q), D),
        item.expand(len(q), D),
        catalogue.unsqueeze(1),
        batch_of([0] * len(q), [0] * len(q), negatives=ids),
    )
    denominators = rows.exp() * (user @ item).exp()
    whole = (user @ item).exp() + (catalogue @ user).exp().sum()
    torch.testing.assert_close((q * denominators).sum(), whole)


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_a_margin_is_above_zero(margin: float) -> None:
    with pytest.raises(ValueError, match=f"margin={margin} must be a finite number above 0"):
        PairwiseHinge(margin=margin)


def test_a_sampler_has_probabilities_that_sum_to_one() -> None:
    for wrong in (torch.zeros(3), torch.rand(3, 3).log(), torch.full((3,), torch.nan)):
        with pytest.raises(ValueError, match=r"log_q \(shape .* must be one log probability an item"):
            SampledSoftmax(temperature=1.0, log_q=wrong)
    with pytest.raises(ValueError, match=r"temperature=0.0 must be"):
        SampledSoftmax(temperature=0.0, log_q=None)
