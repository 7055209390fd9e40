"""Mirror Gradient against two plain steps by hand, and its way to flat minima."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from step_cases import FIRST, STEPS, Case, by_hand, make_step, some_rows

from braidrec.config.run import MirrorGradientConfig, OptimizerConfig
from braidrec.training.hardening import build_mirror
from braidrec.training.mirror import MirrorGradient
from braidrec.training.step import Position

DOWN, UP, EVERY = 0.8, 0.3, 3


def mirror_step(case: Case) -> tuple:
    step, table = make_step(case)
    config = OptimizerConfig(mirror_gradient={"down": DOWN, "up": UP, "every": EVERY})
    step.mirror = build_mirror(config)
    return step, table


@pytest.mark.parametrize("name", ["mf", "mf with biases on ratings", "lightgcn, full", "lightgcn, sampled"])
def test_down_and_then_up(name: str) -> None:
    """Stochastic gradient descent with rate 1: θ − α₁ g(θ), then + α₂ g of where that led, by loops over the rows."""
    case = STEPS[name]
    step, table = mirror_step(case)
    rows = some_rows()
    start = table.weight.detach().numpy().copy()
    result = step.run(rows, FIRST)
    sums, slope = by_hand(case, start, rows)
    lower = start - DOWN * slope
    _, slope_there = by_hand(case, lower, rows)
    np.testing.assert_allclose(table.weight.detach(), lower + UP * slope_there, atol=1e-6)
    assert np.abs(slope_there - slope).max() > 1e-3, "one gradient twice would be found out"
    # What is reported is the loss where the step began.
    assert result.losses[0].item() == pytest.approx(sums["loss"], rel=1e-6)


def test_in_every_third_step_of_an_epoch_only() -> None:
    case = STEPS["mf"]
    step, table = mirror_step(case)
    plain, plain_table = make_step(case)
    for number in range(5):
        with torch.no_grad():
            plain_table.weight.copy_(table.weight)
        at = Position(epoch=2, step=number, global_step=70 + number)
        step.run(some_rows(number), at)
        plain.run(some_rows(number), at)
        assert torch.equal(table.weight, plain_table.weight) == (number % EVERY != 0)


def test_plain_without_it() -> None:
    assert build_mirror(OptimizerConfig()) is None
    assert MirrorGradient(down=DOWN, up=UP, every=EVERY).factors(3) == (DOWN, -UP)
    assert MirrorGradient(down=DOWN, up=UP, every=EVERY).factors(4) == (1.0,)


@pytest.mark.parametrize("values", [{"down": 0.5, "up": 0.5}, {"down": 0.5, "up": 0.9}, {"up": 0.0}, {"every": 0}])
def test_a_way_that_does_not_lead_down_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        MirrorGradientConfig(**values)
    with pytest.raises(ValueError, match="must be"):
        MirrorGradient(**{"down": 1.0, "up": 0.5, "every": 1, **values})
