"""Reconstruction of what was hidden, entry by entry; edges against scikit-learn's log loss."""

import pytest
import torch
from loss_oracles import cosine, dot, random_vectors
from sklearn.metrics import log_loss

from braidrec.objectives.self_supervised.edge_prediction import EdgePrediction
from braidrec.objectives.self_supervised.reconstruction import ReconstructionCosine, ReconstructionMSE

N, F = 4, 5
HIDDEN = torch.tensor([[1, 0, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)


def entries(row: int, values: torch.Tensor) -> list[float]:
    return [value for value, hidden in zip(values[row].tolist(), HIDDEN[row].tolist(), strict=True) if hidden]


def test_squared_error_of_hidden_entries() -> None:
    predicted, target = random_vectors(1, N, F), random_vectors(2, N, F)
    rows = ReconstructionMSE().rows(predicted, target, HIDDEN)
    wanted = []
    for row in range(N):
        pairs = list(zip(entries(row, predicted), entries(row, target), strict=True))
        wanted.append(sum((a - b) ** 2 for a, b in pairs) / len(pairs) if pairs else 0.0)
    assert rows.tolist() == pytest.approx(wanted, rel=1e-12)
    assert wanted[3] == 0.0


@pytest.mark.parametrize("exponent", [1.0, 1.5, 3.0])
def test_scaled_cosine_of_hidden_entries(exponent: float) -> None:
    predicted, target = random_vectors(1, N, F), random_vectors(2, N, F)
    rows = ReconstructionCosine(exponent=exponent).rows(predicted, target, HIDDEN)
    angles = [cosine(entries(row, predicted), entries(row, target)) for row in range(3)]
    assert rows.tolist() == pytest.approx([*((1 - angle) ** exponent for angle in angles), 0.0], rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("loss", [ReconstructionMSE(), ReconstructionCosine(exponent=2.0)])
def test_only_predictions_of_hidden_entries_move(loss: ReconstructionMSE | ReconstructionCosine) -> None:
    predicted, target = random_vectors(1, N, F), random_vectors(2, N, F)
    loss.rows(predicted, target, HIDDEN).sum().backward()
    assert target.grad is None
    # Row 2 has one hidden entry, and an angle between numbers has no slope.
    rows = [0, 1, 2] if isinstance(loss, ReconstructionMSE) else [0, 1]
    assert predicted.grad[rows][HIDDEN[rows]].all()
    assert not predicted.grad[~HIDDEN].any()
    held = target.detach()
    assert torch.autograd.gradcheck(lambda x: loss.rows(x, held, HIDDEN), (predicted,))


@pytest.mark.parametrize("loss", [ReconstructionMSE(), ReconstructionCosine(exponent=2.0)])
def test_one_modality_from_the_others(loss: ReconstructionMSE | ReconstructionCosine) -> None:
    """A whole row hidden is all its entries hidden."""
    predicted, target = random_vectors(1, N, F), random_vectors(2, N, F)
    present = torch.tensor([[True], [False], [True], [True]])
    torch.testing.assert_close(
        loss.rows(predicted, target, present), loss.rows(predicted, target, present.repeat(1, F))
    )


@pytest.mark.parametrize("loss", [ReconstructionMSE(), ReconstructionCosine(exponent=1.5)])
def test_finite_where_nothing_is_known_or_all_is_right(loss: ReconstructionMSE | ReconstructionCosine) -> None:
    """NaN where a feature is absent, zeros, and predictions that are right to the last bit."""
    target = torch.tensor([[torch.nan, torch.nan], [0.0, 0.0], [0.1, 0.3], [0.1, torch.nan]])
    hidden = torch.tensor([[False, False], [True, True], [True, True], [True, False]])
    predicted = torch.tensor([[1.0, 2.0], [0.0, 0.0], [0.1, 0.3], [0.1, 5.0]], requires_grad=True)
    rows = loss.rows(predicted, target, hidden)
    assert rows[[0, 2, 3]].tolist() == pytest.approx([0.0] * 3, abs=1e-9)
    rows.sum().backward()
    assert torch.isfinite(rows).all() and torch.isfinite(predicted.grad).all()


def test_a_cosine_that_is_rounded_above_one_is_no_nan() -> None:
    target = random_vectors(4, 2000, 7).detach().float()
    rows = ReconstructionCosine(exponent=1.5).rows(3 * target, target, torch.ones(1, 1, dtype=torch.bool))
    assert (rows >= 0).all() and rows.max() < 1e-8


@pytest.mark.parametrize("exponent", [0.5, float("nan")])
def test_the_slope_at_a_perfect_reconstruction_is_finite(exponent: float) -> None:
    with pytest.raises(ValueError, match=f"exponent={exponent} must be at least 1"):
        ReconstructionCosine(exponent=exponent)


def test_edges_against_non_edges() -> None:
    vectors = random_vectors(3, 6, 4)
    source, target = torch.tensor([0, 2, 2]), torch.tensor([1, 3, 0])
    others = torch.tensor([[3, 4], [5, 5], [1, 4]])
    rows = EdgePrediction().rows(vectors, source, target, others)
    nodes = vectors.tolist()
    for edge in range(3):
        start = nodes[source[edge]]
        scores = [dot(start, nodes[end]) for end in (target[edge], *others[edge])]
        probabilities = torch.tensor(scores).double().sigmoid().tolist()
        # A mean over three in which the edge weighs as much as both non-edges.
        wanted = 2 * log_loss([1, 0, 0], probabilities, sample_weight=[1.0, 0.5, 0.5])
        assert rows[edge].item() == pytest.approx(wanted, rel=1e-6)
    assert torch.autograd.gradcheck(lambda x: EdgePrediction().rows(x, source, target, others), (vectors,))


def test_no_edges_no_rows() -> None:
    vectors = torch.zeros(2, 3, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    rows = EdgePrediction().rows(vectors, none, none, torch.zeros(0, 1, dtype=torch.int64))
    assert rows.shape == (0,)
    rows.sum().backward()
    assert not vectors.grad.any()
