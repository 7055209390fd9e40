"""Suggestions: equal seeds, resumed searches, no repetition, and TPE against draws on a function whose top is known."""

import itertools
import math
from typing import Any

import pytest
from search_cases import ended, space_of

from braidrec.config.sweep import GridConfig, RandomConfig, TPEConfig
from braidrec.search.space import Space
from braidrec.search.suggest import Suggester

SPACE = {
    "kind": {"choice": ["flat", "curved"]},
    "x": {"uniform": [-5.0, 5.0], "when": {"kind": "curved"}},
    "rate": {"log_uniform": [1e-4, 1.0]},
    "size": {"log_integer": [8, 512]},
    "modes": {"choice": [{"a": 1}, {"a": 2}, None]},
}
ALGORITHMS = [RandomConfig(), TPEConfig(startup=5)]


def height(point: dict[str, Any]) -> float:
    """At most 1, at kind=curved, x=2, rate=.01."""
    if point["kind"] == "flat":
        return 0.2
    return math.exp(-((point["x"] - 2) ** 2) / 8) - 0.1 * abs(math.log10(point["rate"]) + 2)


def searched(space: Space, algorithm: Any, seed: int, trials: int, known: int = 0) -> list[dict[str, Any]]:
    """The points of a search of so many trials; the first `known` were tried by an earlier process."""
    points: list[dict[str, Any]] = []
    suggester = Suggester(space, algorithm, seed, "max")
    for number in range(1, trials + 1):
        if number == known + 1 and known:
            suggester = Suggester(space, algorithm, seed, "max")
            for earlier, point in enumerate(points, start=1):
                suggester.tell(ended(earlier, point, height(point)))
        point = suggester.suggest(number)
        assert point is not None
        points.append(point)
        suggester.tell(ended(number, point, height(point)))
    return points


def searched_all(space: Space, algorithm: Any) -> list[dict[str, Any]]:
    """All points of a finite space, as they are suggested."""
    suggester = Suggester(space, algorithm, 0, "max")
    points = []
    for number in itertools.count(1):
        point = suggester.suggest(number)
        if point is None:
            break
        points.append(point)
        suggester.tell(ended(number, point, 0.5))
    return points


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.kind)
def test_equal_seeds_suggest_the_same_and_others_do_not(algorithm: Any) -> None:
    space = space_of(SPACE)
    first, second = (searched(space, algorithm, 7, 15) for _ in range(2))
    assert first == second
    assert searched(space, algorithm, 8, 15) != first


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.kind)
def test_a_search_that_goes_on_suggests_what_it_would_have_suggested(algorithm: Any) -> None:
    space = space_of(SPACE)
    assert searched(space, algorithm, 7, 18, known=11) == searched(space, algorithm, 7, 18)


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.kind)
def test_suggestions_lie_in_the_space_with_its_conditions(algorithm: Any) -> None:
    for point in searched(space_of(SPACE), algorithm, 1, 30):
        assert ("x" in point) == (point["kind"] == "curved")
        assert -5 <= point.get("x", 0.0) <= 5 and 1e-4 <= point["rate"] <= 1.0
        assert isinstance(point["size"], int) and 8 <= point["size"] <= 512
        assert point["modes"] in ({"a": 1}, {"a": 2}, None)


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, GridConfig()], ids=lambda each: each.kind)
def test_no_point_is_tried_twice_and_a_finite_space_ends(algorithm: Any) -> None:
    space = space_of({"a": {"choice": ["x", "y", "z"]}, "b": {"integer": [1, 3], "when": {"a": ["x", "y"]}}})
    points = [tuple(point.items()) for point in searched_all(space, algorithm)]
    assert len(points) == len(set(points)) == 7  # x and y with three values of b each, z


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda each: each.kind)
def test_a_stepped_value_is_the_one_that_conditions_and_grids_write(algorithm: Any) -> None:
    space = space_of({"a": {"uniform": [0.1, 0.7], "step": 0.1}, "b": {"choice": [1], "when": {"a": [0.3, 0.6]}}})
    points = searched_all(space, algorithm)
    assert sorted(point["a"] for point in points) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]
    assert [point["a"] for point in sorted(points, key=lambda each: each["a"]) if "b" in point] == [0.3, 0.6]


@pytest.mark.slow
def test_tpe_finds_the_top_with_fewer_trials_than_draws_do() -> None:
    space = space_of(SPACE)
    best = {
        algorithm.kind: [max(map(height, searched(space, algorithm, seed, 30))) for seed in range(3)]
        for algorithm in (RandomConfig(), TPEConfig(startup=10))
    }
    means = {kind: sum(values) / len(values) for kind, values in best.items()}
    assert means["tpe"] > 0.9
    assert means["tpe"] > means["random"]


def test_a_low_score_can_be_the_good_one() -> None:
    space = space_of({"x": {"uniform": [-5.0, 5.0]}})
    suggester = Suggester(space, TPEConfig(startup=5), 0, "min")
    points = []
    for number in range(1, 31):
        point = suggester.suggest(number)
        assert point is not None
        points.append(point["x"])
        suggester.tell(ended(number, point, (point["x"] - 3) ** 2))
    assert abs(sum(points[-10:]) / 10 - 3) < 1


def test_trials_stopped_early_teach_and_failed_ones_do_not() -> None:
    space = space_of({"x": {"uniform": [0.0, 1.0]}})

    def after(state: str) -> dict[str, Any] | None:
        suggester = Suggester(space, TPEConfig(startup=4), 0, "max")
        for number in range(1, 9):
            good = number / 9
            suggester.tell(ended(number, {"x": good}, good, state))
        return suggester.suggest(9)

    drawn = Suggester(space, RandomConfig(), 0, "max").suggest(9)
    assert after("failed") == drawn  # fewer than four lessons: still drawn independently
    assert after("stopped_early") != drawn
