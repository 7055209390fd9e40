"""From a sweep to its runs: the base, the objective, and everything that is refused before anything starts."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from search_cases import planted_run, sweep_config

from braidrec.config.load import ConfigError
from braidrec.data.errors import DatasetError
from braidrec.search import runs as runs_module
from braidrec.search.runs import Runs
from braidrec.search.space import values_of

LEARNING_RATE = {"training.optimizer.learning_rate": {"choice": [0.01, 0.02]}}


def refusal(folder: Path, space: dict[str, Any], run: dict[str, Any] | None = None, **keys: Any) -> str:
    sweep = sweep_config(space, run=planted_run(folder, **(run or {})), **keys)
    with pytest.raises(ConfigError) as refused:
        Runs.of(sweep).check(sweep)
    return str(refused.value)


@pytest.mark.parametrize(
    ("space", "wanted"),
    [
        ({"model.fusion.timin": {"choice": ["early"]}}, "model.fusion.timin: unknown key. Did you mean timing?"),
        ({"modle.dim": {"choice": [8]}}, "modle: unknown key. Did you mean model?"),
        ({"model.fusion.timing": {"choice": ["early", "erly"]}}, "not 'erly'. Did you mean early?"),
        ({"model.dim": {"uniform": [8.5, 16.5], "step": 2}}, "model.dim: must be an integer, not 8.5"),
        ({"model.dim": {"integer": [0, 8]}}, "model.dim: must be greater than 0, not 0"),
        ({"model.modalities.dropout": {"choice": [0.5, 1.0]}}, "model.modalities.dropout: must be less than 1"),
        ({"model.encoder.dropout": {"choice": [0.1]}}, "model.encoder.dropout: unknown key"),
        ({"model.encoder.layers.deep": {"choice": [1]}}, "model.encoder.layers: must be an integer"),
    ],
)
def test_a_key_that_is_not_there_or_a_value_that_its_type_refuses(
    tmp_path: Path, space: dict[str, Any], wanted: str
) -> None:
    message = refusal(tmp_path, space)
    assert wanted in message
    assert not (tmp_path / "runs").exists() and not (tmp_path / "data").exists(), "nothing has started"


@pytest.mark.parametrize(
    "dimension",
    [
        {"integer": [8, 31], "step": 8},  # 31 is never suggested
        {"integer": [8, 24], "step": 16},
    ],
    ids=["end between steps", "step"],
)
def test_values_that_are_never_suggested_refuse_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dimension: dict[str, Any]
) -> None:
    sweep = sweep_config(
        {"model.dim": dimension}, run=planted_run(tmp_path), algorithm={"kind": "random"}, budget={"trials": 1}
    )
    built: set[int] = set()
    monkeypatch.setattr(runs_module, "build_model", lambda model, _: built.add(model.dim))
    runs = Runs.of(sweep)
    runs.check(sweep)
    assert built <= set(values_of(runs.space.dimensions["model.dim"]) or ())


def test_a_range_on_a_logarithmic_scale_is_looked_at_over_all_its_orders(tmp_path: Path) -> None:
    """Drawn evenly, nine of ten values would lie in the highest of five orders of magnitude."""
    key, keys = "training.optimizer.learning_rate", {"algorithm": {"kind": "tpe"}, "budget": {"trials": 1}}
    sweep = sweep_config({key: {"log_uniform": [1e-6, 1e-1]}}, run=planted_run(tmp_path), **keys)
    found = [point[key] for point in Runs.of(sweep)._more_points(sweep)]
    assert len(set(found)) == runs_module.POINTS_CHECKED
    orders = Counter(math.floor(math.log10(value)) for value in found)
    assert all(1e-6 <= value <= 1e-1 for value in found)
    assert set(orders) == {-6, -5, -4, -3, -2} and min(orders.values()) > 30


@pytest.mark.parametrize("key", ["data", "evaluation", "evaluation.at", "data.planted.users", "tracking", "workers"])
def test_a_key_that_holds_or_lies_within_such_a_one_is_refused_too(tmp_path: Path, key: str) -> None:
    assert f"space.{key}: is no key to search over" in refusal(tmp_path, {key: {"choice": [{"path": "x"}]}})


@pytest.mark.parametrize("key", ["seed", "name", "storage", "evaluation.monitor", "tracking.uri", "workers.num"])
def test_a_key_without_which_trials_are_not_comparable(tmp_path: Path, key: str) -> None:
    assert f"space.{key}: is no key to search over" in refusal(tmp_path, {key: {"choice": [1]}})


def test_a_key_under_a_parents_value_is_accepted_there_and_refused_elsewhere(tmp_path: Path) -> None:
    encoder = {"model.encoder.kind": {"choice": ["lightgcn", "ngcf"]}}
    modalities = {"model": {"modalities": {"use": ["*"]}}}
    under = {**encoder, "model.encoder.dropout": {"choice": [0.1], "when": {"model.encoder.kind": "ngcf"}}}
    sweep = sweep_config(under, run=planted_run(tmp_path, **modalities))
    Runs.of(sweep).check(sweep)
    everywhere = {**encoder, "model.encoder.dropout": {"choice": [0.1]}}
    assert "model.encoder.dropout: unknown key" in refusal(tmp_path, everywhere, modalities)


def test_settings_that_do_not_fit_each_other_are_named_with_their_point(tmp_path: Path) -> None:
    space = {"model.fusion.timing": {"choice": ["late", "early"]}, "model.fusion.of": {"choice": ["vectors", "scores"]}}
    message = refusal(tmp_path, space, {"model": {"modalities": {"use": ["*"]}}})
    assert "model.fusion.timing=early, model.fusion.of=scores" in message
    assert "need model.fusion.timing=late" in message and "a condition (when" in message


def test_the_objective_is_a_validation_metric_with_its_own_direction(tmp_path: Path) -> None:
    assert "Did you mean 'recall@20'" in refusal(tmp_path, LEARNING_RATE, objective={"metric": "recal@20"})
    wrong = refusal(tmp_path, LEARNING_RATE, objective={"metric": "recall@10", "direction": "min"})
    assert "recall@10 is better the higher it is; write max" in wrong
    blind = {"evaluation": {"monitor": None, "patience": None}}
    assert "name the validation metric" in refusal(tmp_path, LEARNING_RATE, blind)
    sweep = sweep_config(LEARNING_RATE, run=planted_run(tmp_path), objective={"metric": "ndcg@10"})
    assert Runs.of(sweep).config({}).evaluation.monitor == "ndcg@10"


def test_a_base_that_cannot_be_read_or_has_no_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such configuration file"):
        Runs.of(sweep_config(LEARNING_RATE, base=["nowhere.yaml"]))
    sweep = sweep_config(LEARNING_RATE, run={"data": {"path": str(tmp_path / "none")}})
    with pytest.raises(DatasetError, match=r"jobs/prepare\.py"):
        Runs.of(sweep).check(sweep)


def test_the_base_is_merged_and_workers_are_none_unless_it_says_so(tmp_path: Path) -> None:
    file = tmp_path / "base.yaml"
    file.write_text("model: {dim: 8, initial_std: 0.2}\ndata: {path: elsewhere}\n")
    sweep = sweep_config(LEARNING_RATE, base=[str(file)], run=planted_run(tmp_path, model={"dim": 16}))
    config = Runs.of(sweep).config({"training.optimizer.learning_rate": 0.02})
    assert (config.model.dim, config.model.initial_std, config.workers.num) == (16, 0.2, 0)
    assert config.training.optimizer.learning_rate == 0.02
    with_workers = sweep_config(LEARNING_RATE, run=planted_run(tmp_path, workers={"num": 2}))
    assert Runs.of(with_workers).config({}).workers.num == 2
