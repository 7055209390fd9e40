"""Projectors against numpy, layer by layer."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from braidrec.models.projectors import ACTIVATIONS, Projector

X = np.random.default_rng(1).standard_normal((6, 5))

FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def made(*args: int, **settings) -> Projector:
    torch.manual_seed(3)
    projector = Projector(*args, **settings).double()
    with torch.no_grad():
        for parameter in projector.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return projector


def of_type(projector: nn.Module, kind: type) -> list:
    return [module for module in projector.modules() if isinstance(module, kind)]


def by_hand(projector: Projector, activation: str) -> np.ndarray:
    h = X
    linears, norms = of_type(projector, nn.Linear), of_type(projector, nn.LayerNorm)
    for place, linear in enumerate(linears):
        h = h @ linear.weight.detach().numpy().T
        if linear.bias is not None:
            h = h + linear.bias.detach().numpy()
        if norms:
            scale, shift = norms[place].weight.detach().numpy(), norms[place].bias.detach().numpy()
            h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-5) * scale + shift
        if place < len(linears) - 1:
            h = FORMULAS[activation](h)
    return h


@pytest.mark.parametrize("activation", FORMULAS)
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("depth", "bias"), [(1, True), (1, False), (2, True), (3, False)])
def test_formula(depth: int, bias: bool, layer_norm: bool, activation: str) -> None:
    more = {} if depth == 1 else {"activation": activation, "hidden": 7}
    projector = made(5, 4, depth=depth, bias=bias, layer_norm=layer_norm, **more)
    found = projector(torch.from_numpy(X))
    np.testing.assert_allclose(found.detach().numpy(), by_hand(projector, activation), rtol=1e-10, atol=1e-12)
    assert [tuple(linear.weight.shape) for linear in of_type(projector, nn.Linear)] == {
        1: [(4, 5)],
        2: [(7, 5), (4, 7)],
        3: [(7, 5), (7, 7), (4, 7)],
    }[depth]
    found.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in projector.parameters())


def test_every_activation_is_tested() -> None:
    assert set(ACTIVATIONS) == set(FORMULAS)


def test_defaults() -> None:
    projector = made(5, 4, depth=2)
    assert [linear.out_features for linear in of_type(projector, nn.Linear)] == [4, 4]
    np.testing.assert_allclose(
        projector(torch.from_numpy(X)).detach().numpy(), by_hand(projector, "leaky_relu"), rtol=1e-10
    )


def test_starts_as_xavier_has_it() -> None:
    """Uniform within ±√(6 / (F + d)): 48,000 numbers fill the interval evenly; biases are zero."""
    projector = Projector(300, 160)
    (linear,) = of_type(projector, nn.Linear)
    bound = math.sqrt(6 / 460)
    weight = linear.weight.detach().double()
    assert float(weight.abs().max()) <= bound
    assert float(weight.abs().max()) > 0.99 * bound
    # The variance of a uniform distribution is a third of the squared bound; its standard error here is 0.4 %.
    assert float(weight.var()) == pytest.approx(bound**2 / 3, rel=0.03)
    assert not linear.bias.any()


def test_dropout_is_for_training_and_on_every_input() -> None:
    projector = made(5, 4, depth=2, hidden=6, dropout=0.5)
    given = torch.from_numpy(X)
    assert torch.equal(projector.eval()(given), projector(given))
    np.testing.assert_allclose(projector(given).detach().numpy(), by_hand(projector, "leaky_relu"), rtol=1e-10)
    projector.train()
    torch.manual_seed(1)
    first = projector(given)
    torch.manual_seed(1)
    assert torch.equal(projector(given), first)
    assert not torch.equal(projector(given), first)
    assert [type(module) for module in projector.layers][::3] == [nn.Dropout, nn.Dropout]
    only = made(5, 4, dropout=0.5).train()
    mean = torch.stack([only(given) for _ in range(4000)]).mean(0)
    # Dropped and rescaled inputs leave the mean of a linear map where it was, here within six standard errors.
    np.testing.assert_allclose(mean.detach().numpy(), by_hand(only, ""), atol=0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_dim": 0}, "in_dim=0 must be at least 1"),
        ({"out_dim": 0}, "out_dim=0"),
        ({"depth": 0}, "depth=0"),
        ({"depth": 2, "hidden": 0}, "hidden=0"),
        ({"dropout": 1.0}, r"dropout=1\.0 must be at least 0 and below 1"),
        ({"hidden": 8}, "hidden=8 has no place in a projector of depth 1"),
        ({"activation": "relu"}, "activation='relu' has no place in a projector of depth 1"),
        ({"depth": 2, "activation": "swish"}, "activation='swish': choose one of"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Projector(**({"in_dim": 5, "out_dim": 4} | settings))
