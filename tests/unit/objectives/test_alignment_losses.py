"""Losses that draw two views together without negatives, against numpy and numbers by hand."""

import numpy as np
import pytest
import torch
from loss_oracles import cosine, random_vectors
from torch import nn

from braidrec.objectives.self_supervised.bootstrap import Bootstrap, distance_to_target
from braidrec.objectives.self_supervised.cosine_alignment import CosineAlignment
from braidrec.objectives.self_supervised.moment_alignment import MomentAlignment

N, D = 5, 3
WEIGHT = torch.tensor([1.0, 2.0, 0.0, 0.5, 1.0])
IDS = torch.tensor([3, 1, 0, 3, 2])


def predictor() -> nn.Linear:
    torch.manual_seed(4)
    return nn.Linear(D, D).double()


def predicted(layer: nn.Linear, vectors: torch.Tensor) -> list:
    return (vectors.detach().numpy() @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()).tolist()


def test_bootstrap_is_the_mean_of_both_directions() -> None:
    layer, first, second = predictor(), random_vectors(1, N, D), random_vectors(2, N, D)
    rows = Bootstrap(layer).rows(first, second, WEIGHT, IDS)
    forth = [cosine(a, b) for a, b in zip(predicted(layer, first), second.tolist(), strict=True)]
    back = [cosine(a, b) for a, b in zip(predicted(layer, second), first.tolist(), strict=True)]
    assert rows.tolist() == pytest.approx([1 - (a + b) / 2 for a, b in zip(forth, back, strict=True)], rel=1e-10)


def test_a_target_gets_no_gradient() -> None:
    prediction, target = random_vectors(1, N, D), random_vectors(2, N, D)
    distance_to_target(prediction, target).sum().backward()
    assert target.grad is None and prediction.grad.any()


def test_bootstrap_moves_predictions_alone() -> None:
    """The gradient of finite differences of what is predicted, targets held."""
    layer, first, second = predictor(), random_vectors(1, N, D), random_vectors(2, N, D)
    held = (first.detach().clone(), second.detach().clone())

    def with_targets_held(a: torch.Tensor, b: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return 0.5 * (distance_to_target(layer(a), held[1]) + distance_to_target(layer(b), held[0]))

    inputs = (first, second, *layer.parameters())
    assert torch.autograd.gradcheck(with_targets_held, inputs)
    wanted = torch.autograd.grad(with_targets_held(*inputs).sum(), inputs)
    found = torch.autograd.grad(Bootstrap(layer).rows(first, second, WEIGHT, IDS).sum(), inputs)
    for mine, oracle in zip(found, wanted, strict=True):
        assert mine.any()
        torch.testing.assert_close(mine, oracle)


def test_cosine_alignment_is_half_the_squared_distance_of_unit_vectors() -> None:
    first, second = random_vectors(1, N, D), random_vectors(2, N, D)
    rows = CosineAlignment().rows(first, second, WEIGHT, IDS)
    a, b = (view.detach().numpy() for view in (first, second))
    distance = a / np.linalg.norm(a, axis=1, keepdims=True) - b / np.linalg.norm(b, axis=1, keepdims=True)
    np.testing.assert_allclose(rows.detach(), 0.5 * (distance**2).sum(1), rtol=1e-10)
    assert torch.autograd.gradcheck(lambda x, y: CosineAlignment().rows(x, y, WEIGHT, IDS), (first, second))


def test_angles_by_hand() -> None:
    first = torch.tensor([[1.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    second = torch.tensor([[5.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]])
    for rows in (
        CosineAlignment().rows(first, second, torch.ones(4), torch.arange(4)),
        Bootstrap(nn.Identity()).rows(first, second, torch.ones(4), torch.arange(4)),
    ):
        torch.testing.assert_close(rows, torch.tensor([0.0, 1.0, 2.0, 1.0]))


@pytest.mark.parametrize("per_dimension", [True, False])
def test_moments_of_the_rows_that_take_part(per_dimension: bool) -> None:
    first, second = random_vectors(1, N, D), random_vectors(2, N, D, scale=2.0)
    loss = MomentAlignment(per_dimension=per_dimension)
    rows = loss.rows(first, second, WEIGHT, IDS)
    axis = 0 if per_dimension else None
    a, b = (view.detach().numpy()[WEIGHT.numpy() > 0] for view in (first, second))
    wanted = (abs(a.mean(axis) - b.mean(axis)) + abs(a.std(axis) - b.std(axis))).mean()
    np.testing.assert_allclose(rows.detach(), np.full(N, wanted), rtol=1e-10)
    assert torch.autograd.gradcheck(lambda x, y: loss.rows(x, y, WEIGHT, IDS), (first, second))
    rows.sum().backward()
    assert not first.grad[2].any() and not second.grad[2].any()


def test_moments_of_constant_dimensions_and_of_nobody_are_finite() -> None:
    for weight in (torch.ones(3), torch.tensor([1.0, 0.0, 0.0]), torch.zeros(3)):
        first = torch.full((3, 2), 7.0, requires_grad=True)
        second = torch.tensor([[1.0, 7.0], [1.0, 7.0], [4.0, 7.0]], requires_grad=True)
        rows = MomentAlignment().rows(first, second, weight, torch.arange(3))
        rows.sum().backward()
        assert torch.isfinite(rows).all()
        assert torch.isfinite(first.grad).all() and torch.isfinite(second.grad).all()
        if not weight.any():
            assert rows.tolist() == [0.0] * 3


def test_small_deviations_about_a_large_mean_keep_their_digits() -> None:
    """fp32: 1000 ± .01 against 1000 ± .03; E[x²] − E[x]² would be off by more than the deviations."""
    signs = torch.tensor([1.0, -1.0]).repeat(50).unsqueeze(1)
    rows = MomentAlignment().rows(1000 + 0.01 * signs, 1000 + 0.03 * signs, torch.ones(100), torch.arange(100))
    torch.testing.assert_close(rows, torch.full((100,), 0.02), rtol=0, atol=1e-3)
