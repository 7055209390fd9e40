"""Spaces: what they hold, which keys are active, and everything that is refused."""

import itertools
from typing import Any

import pytest
from search_cases import space_of, sweep_config

from braidrec.config.load import ConfigError
from braidrec.search.space import with_point

FUSION = {
    "timing": {"choice": ["early", "late"]},
    "combine": {"choice": ["sum", "concat"]},
    "of": {"choice": ["vectors", "scores"], "when": {"timing": "late"}},
}


def test_a_grid_is_the_product_of_all_values_with_the_last_key_fastest() -> None:
    space = space_of({"a": {"choice": ["x", "y"]}, "b": {"integer": [1, 3]}, "c": {"uniform": [0, 1], "step": 0.5}})
    product = itertools.product(["x", "y"], [1, 2, 3], [0.0, 0.5, 1.0])
    assert [tuple(point.values()) for point in space.grid()] == list(product)


def test_a_conditional_key_is_there_only_under_its_parents_value() -> None:
    points = list(space_of(FUSION).grid())
    assert len(points) == 2 + 2 * 2  # early × 2, late × 2 × 2
    assert all(("of" in point) == (point["timing"] == "late") for point in points)


def test_conditions_go_through_several_levels_and_take_lists() -> None:
    space = space_of(
        {
            "leaf": {"choice": [1, 2], "when": {"middle": ["p", "q"]}},
            "middle": {"choice": ["p", "q", "r"], "when": {"root": True}},
            "root": {"choice": [True, False]},
        }
    )
    # root true: p and q have two leaves each, r none; root false: nothing below.
    assert len(list(space.grid())) == 2 + 2 + 1 + 1
    assert list(space.dimensions) == ["root", "middle", "leaf"]


def test_corners_show_every_choice_and_both_ends_of_every_range() -> None:
    space = space_of({**FUSION, "rate": {"uniform": [0.1, 0.4], "when": {"of": "scores"}}})
    seen = {(key, point[key]) for key, point in space.corners()}
    assert seen == {
        ("timing", "early"), ("timing", "late"), ("combine", "sum"), ("combine", "concat"),
        ("of", "vectors"), ("of", "scores"), ("rate", 0.1), ("rate", 0.4),
    }  # fmt: skip
    assert all(point["timing"] == "late" for key, point in space.corners() if key in ("of", "rate"))


def test_steps_end_where_the_range_does_in_spite_of_rounding() -> None:
    (dimension,) = space_of({"a": {"uniform": [0.1, 0.7], "step": 0.1}}).dimensions.values()
    values = [point["a"] for point in space_of({"a": dimension.model_dump()}).grid()]
    assert values == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_the_stored_form_names_kind_ends_scale_and_condition() -> None:
    stored = space_of({**FUSION, "rate": {"log_uniform": [0.001, 0.1], "when": {"of": "scores"}}}).to_plain()
    assert stored["of"] == {"kind": "choice", "values": ["vectors", "scores"], "when": {"timing": ["late"]}}
    assert stored["rate"] == {
        "kind": "uniform", "low": 0.001, "high": 0.1, "log": True, "step": None, "when": {"of": ["scores"]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        ({}, "name at least one key"),
        ({"a": {}}, "give exactly one of choice"),
        ({"a": {"choice": [1], "uniform": [0, 1]}}, "choice and uniform"),
        ({"a": {"choise": [1]}}, "Did you mean choice?"),
        ({"a": {"choice": []}}, "at least one value"),
        ({"a": {"choice": [1, 1]}}, "give each value once"),
        ({"a": {"uniform": [2, 1]}}, "uniform=[2, 1]: the first number must be smaller"),
        ({"a": {"uniform": [0, "1"]}}, "must be a number"),
        ({"a": {"uniform": [0, 1, 2]}}, "a.uniform"),
        ({"a": {"integer": [0.5, 3]}}, "must be an integer"),
        ({"a": {"log_uniform": [0, 1]}}, "a logarithm needs numbers above 0"),
        ({"a": {"log_uniform": [1, 2], "step": 0.1}}, "step has no effect on log_uniform"),
        ({"a": {"integer": [1, 5], "step": 0.5}}, "the step of integers is an integer"),
        ({"a": {"uniform": [0, 1], "step": 3}}, "longer than the way"),
        ({"a": {"choice": [1, 2], "step": 1}}, "a choice has its own values"),
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused(space: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError) as refused:
        sweep_config(space)
    assert wanted in str(refused.value)


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        ({"a": {"choice": [1], "when": {"modle": 1}}, "model": {"choice": [1]}}, "Did you mean model?"),
        ({"a": {"choice": [1], "when": {"b": 3}}, "b": {"choice": [1, 2]}}, "b is never 3; it is one of 1, 2"),
        ({"a": {"choice": [1], "when": {"b": []}}, "b": {"choice": [1, 2]}}, "b=[] is never so"),
        ({"a": {"choice": [1], "when": {"b": 0.5}}, "b": {"uniform": [0, 1]}}, "no value to wait for"),
        ({"a": {"choice": [1], "when": {"b": 1}}, "b": {"choice": [1], "when": {"a": 1}}}, "in a circle: a → b → a"),
        (
            {
                "a": {"choice": [1, 2]},
                "b": {"choice": [1], "when": {"a": 1}},
                "c": {"choice": [1], "when": {"a": 2, "b": 1}},
            },
            "never met together",
        ),
        (
            {"a": {"choice": [{"b": 1}, {"b": 2}]}, "a.b": {"choice": [3, 4]}},
            "space.a.b: lies within a, which is in the space too",
        ),
        (
            {"a.b": {"choice": [3, 4], "when": {"c": 1}}, "c": {"choice": [1, 2]}, "a": {"choice": [{"b": 1}]}},
            "under which of them it is set (when: {a: …})",
        ),
    ],
)  # fmt: skip
def test_a_condition_that_makes_no_sense_is_refused(space: dict[str, Any], wanted: str) -> None:
    with pytest.raises(ConfigError) as refused:
        list(space_of(space).corners())
    assert wanted in str(refused.value)


def test_a_key_within_another_one_is_set_under_its_value() -> None:
    space = space_of(
        {
            "a.b": {"choice": [3, 4], "when": {"a": {"kind": "x"}}},
            "a": {"choice": [{"kind": "x"}, {"kind": "y"}]},
            "a.bc": {"choice": [1], "when": {"a.b": 3}},
        }
    )
    assert [with_point({}, point)["a"] for point in space.grid()] == [
        {"kind": "x", "b": 3, "bc": 1},
        {"kind": "x", "b": 4},
        {"kind": "y"},
    ]


def test_a_grid_needs_an_end_and_anything_else_a_budget() -> None:
    with pytest.raises(ConfigError, match="uniform has no end of values"):
        list(space_of({"a": {"uniform": [0, 1]}}).grid())
    with pytest.raises(ConfigError, match="never ends by itself"):
        sweep_config({"a": {"choice": [1]}}, algorithm={"kind": "tpe"})


def test_a_point_replaces_values_also_in_lists_and_leaves_the_base_alone() -> None:
    base = {"model": {"fusion": {"timing": "early"}, "views": [{"rate": 0.1}, {"rate": 0.2}]}}
    point = {"model.fusion": {"combine": "max"}, "model.views.1.rate": 0.5, "training.epochs": 3}
    assert with_point(base, point) == {
        "model": {"fusion": {"combine": "max"}, "views": [{"rate": 0.1}, {"rate": 0.5}]},
        "training": {"epochs": 3},
    }
    assert base["model"]["fusion"] == {"timing": "early"}
    with pytest.raises(ConfigError, match="list of 2"):
        with_point(base, {"model.views.2.rate": 1})
    with pytest.raises(ConfigError, match="no key 'x'"):
        with_point(base, {"model.fusion.timing.x": 1})
