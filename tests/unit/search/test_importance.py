"""fANOVA on scores whose variance is known by calculation."""

import itertools
from typing import Any

import numpy as np
import pytest

from braidrec.search.importance import MIN_TRIALS, TrialScore, importances


def trial(settings: dict[str, Any], *curve: float, stopped: bool = False) -> TrialScore:
    return TrialScore(settings=settings, curve=dict(enumerate(curve, start=1)), stopped_early=stopped)


def test_shares_are_those_of_the_variance() -> None:
    """On a whole grid, score = 3·a + b with a, b, c in {0, …, 3}: Var = (9 + 1) Var(a), so that a has .9, b .1, c 0."""
    trials = [trial({"a": a, "b": b, "c": c}, 3 * a + b) for a, b, c in itertools.product(range(4), repeat=3)]
    (found,) = importances(trials, higher_is_better=True)
    assert (found.branch, found.trials, found.epochs) == ("all trials", 64, None)
    assert found.shares["a"] == pytest.approx(0.9, abs=0.03)
    assert found.shares["b"] == pytest.approx(0.1, abs=0.03)
    assert found.shares["c"] < 0.01 and sum(found.shares.values()) == pytest.approx(1)
    assert list(found.shares) == ["a", "b", "c"]


def test_choices_and_logarithms() -> None:
    """A choice decides all; a rate over four orders of magnitude nothing."""
    random = np.random.default_rng(0)
    trials = [
        trial({"kind": kind, "rate": float(10 ** random.uniform(-5, -1)), "flag": flag}, float(kind == "attention"))
        for kind in ("none", "attention", "gate") for flag in (True, False) for _ in range(6)
    ]  # fmt: skip
    (found,) = importances(trials, higher_is_better=True)
    assert found.shares["kind"] > 0.9 and set(found.shares) == {"kind", "rate", "flag"}


def test_branches_of_a_conditional_space() -> None:
    """`margin` exists for the hinge alone, where it decides all."""
    trials = [trial({"loss": "bpr", "rate": rate / 10}, 0.5 + rate / 100) for rate in range(9)]
    trials += [
        trial({"loss": "hinge", "rate": rate / 10, "margin": margin}, 0.1 * margin)
        for rate in range(3) for margin in range(1, 5)
    ]  # fmt: skip
    found = {entry.branch: entry for entry in importances(trials, higher_is_better=True)}
    assert set(found) == {"all trials", "with margin", "with the common keys alone"}
    assert set(found["all trials"].shares) == {"loss", "rate"}
    assert found["with margin"].trials == 12 and found["with margin"].shares["margin"] > 0.95
    assert found["with the common keys alone"].shares == {"rate": pytest.approx(1)}


def test_stopped_trials_are_compared_within_the_epochs_that_all_had() -> None:
    """Within two epochs `fast` decides; what the long ones reached later, by `slow`, must not count there."""
    trials = []
    for fast, slow in itertools.product(range(4), repeat=2):
        early = (fast / 10, fast / 10 + 0.01)
        trials.append(trial({"fast": fast, "slow": slow}, *early, *([] if fast < 2 else [1.0 + slow] * 2),
                            stopped=fast < 2))  # fmt: skip
    short, whole = importances(trials, higher_is_better=True)
    assert (short.epochs, short.trials, whole.epochs, whole.trials) == (2, 16, None, 8)
    assert short.shares["fast"] > 0.95
    assert whole.shares["slow"] > 0.95


def test_the_direction_of_the_score() -> None:
    """The best of a curve is its lowest value where low is good: it depends on `low` only, its highest on `high`."""
    trials = [trial({"low": low, "high": high}, -low, 10 * high) for low, high in itertools.product(range(4), repeat=2)]
    assert importances(trials, higher_is_better=False)[0].shares["low"] > 0.95
    assert importances(trials, higher_is_better=True)[0].shares["high"] > 0.95


def test_a_score_of_zero_counts() -> None:
    trials = [trial({"a": number % 2}, float(number % 2)) for number in range(MIN_TRIALS)]
    assert importances(trials, higher_is_better=True)[0].trials == MIN_TRIALS


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [trial({"a": number}, number) for number in range(MIN_TRIALS - 1)],
        [trial({"a": number}, 0.5) for number in range(20)],
        [trial({"a": 1}, number) for number in range(20)],
        [trial({"a": number}) for number in range(20)],
    ],
    ids=["none", "too few", "equal scores", "nothing varies", "no scores"],
)
def test_nothing_is_said_where_nothing_can_be(trials: list[TrialScore]) -> None:
    assert importances(trials, higher_is_better=True) == []
