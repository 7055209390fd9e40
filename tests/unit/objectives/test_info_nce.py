"""InfoNCE against a loop over rows and candidates, and against cross-entropy where nothing is masked."""

from math import log

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from loss_oracles import cosine, dot, minus_log_share, random_vectors

from braidrec.objectives.self_supervised.info_nce import InfoNCE

IDS = torch.tensor([4, 7, 4, 2, 7, 9])
WEIGHT = torch.tensor([1.0, 0.5, 1.0, 0.0, 0.0, 2.0])
"""Node 4 stands twice among the rows that take part; row 3 and one of node 7's do not."""
N, D, TEMPERATURE = 6, 3, 0.3


def naive(first: list, second: list, *, both: bool, by_cosine: bool) -> list[float]:
    similarity = cosine if by_cosine else dot
    losses = []
    for row in range(N):
        others = [j for j in range(N) if WEIGHT[j] > 0 and IDS[j] != IDS[row]]
        logits = [similarity(first[row], second[j]) / TEMPERATURE for j in others]
        if both:
            logits += [similarity(first[row], first[j]) / TEMPERATURE for j in others]
        losses.append(minus_log_share(similarity(first[row], second[row]) / TEMPERATURE, logits))
    return losses


@pytest.mark.parametrize("by_cosine", [True, False])
@pytest.mark.parametrize("negatives_from", ["second", "both"])
def test_value_and_gradient(negatives_from: str, by_cosine: bool) -> None:
    loss = InfoNCE(temperature=TEMPERATURE, negatives_from=negatives_from, cosine=by_cosine)
    first, second = random_vectors(1, N, D), random_vectors(2, N, D)
    rows = loss.rows(first, second, WEIGHT, IDS)
    wanted = naive(first.tolist(), second.tolist(), both=negatives_from == "both", by_cosine=by_cosine)
    assert rows.tolist() == pytest.approx(wanted, rel=1e-10)
    assert torch.autograd.gradcheck(lambda a, b: loss.rows(a, b, WEIGHT, IDS), (first, second))


def test_distinct_nodes_are_a_cross_entropy() -> None:
    first, second = random_vectors(1, N, D), random_vectors(2, N, D)
    rows = InfoNCE(temperature=TEMPERATURE).rows(first, second, torch.ones(N), torch.arange(N))
    similarity = F.cosine_similarity(first.unsqueeze(1), second.unsqueeze(0), dim=-1)
    torch.testing.assert_close(rows, F.cross_entropy(similarity / TEMPERATURE, torch.arange(N), reduction="none"))


@pytest.mark.parametrize("negatives_from", ["second", "both"])
def test_rows_without_weight_move_nothing(negatives_from: str) -> None:
    loss = InfoNCE(temperature=TEMPERATURE, negatives_from=negatives_from)
    first, second = random_vectors(1, N, D), random_vectors(2, N, D)
    rows = loss.rows(first, second, WEIGHT, IDS)
    (rows * WEIGHT).sum().backward()
    for view in (first, second):
        assert not view.grad[3:5].any() and view.grad[[0, 1, 2, 5]].any(-1).all()
    taking_part = WEIGHT > 0
    alone = loss.rows(first[taking_part], second[taking_part], WEIGHT[taking_part], IDS[taking_part])
    torch.testing.assert_close(rows[taking_part], alone)


@pytest.mark.parametrize("negatives_from", ["second", "both"])
def test_nothing_to_compare_with_is_no_loss(negatives_from: str) -> None:
    loss = InfoNCE(temperature=0.01, negatives_from=negatives_from)
    one_node = (torch.tensor([1.0, 1.0, 0.0]), torch.tensor([3, 3, 3]))
    nobody = (torch.zeros(3), torch.tensor([1, 2, 3]))
    for weight, ids in (one_node, nobody):
        views = [random_vectors(seed, 3, D) for seed in (1, 2)]
        rows = loss.rows(*views, weight, ids)
        assert rows.tolist() == [0.0] * 3
        rows.sum().backward()
        assert not any(view.grad.any() for view in views)
    none = torch.zeros(0, D, requires_grad=True)
    assert loss.rows(none, none, torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_zero_vectors_and_small_temperatures_stay_finite() -> None:
    """fp32, τ = .001: logits of ±1000."""
    first = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    second = torch.tensor([[-1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    rows = InfoNCE(temperature=0.001).rows(first, second, torch.ones(3), torch.arange(3))
    # Row 0: its own at −1000, one other there, one at 1000. Row 1: two at 1000. Row 2: all three at 0.
    assert rows.tolist() == pytest.approx([2000.0, log(2), log(3)], rel=1e-4)
    rows.sum().backward()
    assert torch.isfinite(first.grad).all() and torch.isfinite(second.grad).all()
    assert not first.grad[2].any()


def test_a_temperature_is_above_zero() -> None:
    with pytest.raises(ValueError, match=r"temperature=0 must be a finite number above 0"):
        InfoNCE(temperature=0)
