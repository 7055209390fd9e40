"""Sweeps from beginning to end, without Ray: what the search is told, finalists that fail, budgets, what is written."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from inline_sweep import without_ray
from search_cases import keys_in, planted_run, sweep_config

import braidrec
from braidrec.config.load import ConfigError, load_config, validate
from braidrec.config.run import RunConfig
from braidrec.config.sweep import SweepConfig
from braidrec.data.storage import Location
from braidrec.errors import RunError, Stopped
from braidrec.search import judges, on_test, process
from braidrec.search import sweep as sweep_module
from braidrec.search.folder import SweepFolder, stored_config
from braidrec.search.records import TrialRecord
from braidrec.search.sources import Tasks
from braidrec.search.suggest import Suggester
from braidrec.search.sweep import run_sweep
from braidrec.tracking.reader import RunReader

__all__ = ["without_ray"]  # a fixture
Seen = list[tuple[str, dict[str, Any]]]


def small(folder: Path, rates: list[float], **keys: Any) -> SweepConfig:
    run = planted_run(
        folder,
        training={"epochs": 3, "batch_size": 256},
        model={"dim": 8, **keys.pop("model", {})},
        evaluation={"at": [5, 20], **keys.pop("evaluation", {})},
        **keys.pop("run", {}),
    )
    space = {"training.optimizer.learning_rate": {"choice": rates}}
    plain = {"name": "small", "scheduler": {"kind": "none"}, "finalists": {"candidates": 2, "seeds": 2}, **keys}
    return sweep_config(space, run=run, **plain)


def test_neither_suggester_nor_judge_is_told_anything_of_a_test(
    tmp_path: Path, without_ray: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep with tested finals goes on with more trials; all that both were told, in both sessions, is looked at."""
    told: list[tuple[str, Any]] = []

    def tell(self: Suggester, record: TrialRecord) -> None:
        told.append((record.name, json.loads(json.dumps(vars(record)))))
        real_tell(self, record)

    class Judge(judges.AsyncHyperBandScheduler):  # type: ignore[misc]
        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            told.append(("judge", dict(result)))
            return str(super().on_trial_result(tune_controller, trial, result))

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
            told.append(("judge", dict(result)))
            super().on_trial_complete(tune_controller, trial, result)

    real_tell = Suggester.tell
    monkeypatch.setattr(Suggester, "tell", tell)
    monkeypatch.setattr(judges, "AsyncHyperBandScheduler", Judge)
    config = small(tmp_path, [0.02, 0.01, 0.03], scheduler={"kind": "asha", "grace": 1}, budget={"trials": 2})
    first = run_sweep(config)
    assert all("test/recall@20" in candidate.tests for candidate in first.candidates), "there is something to leak"
    after = len(told)
    run_sweep(config.model_copy(update={"budget": config.budget.model_copy(update={"trials": 3})}), resume="small")
    assert {name for name, _ in told} == {"judge", *(f"small-trial-000{number}" for number in (1, 2, 3))}
    assert {name for name, _ in told[after:]} == {name for name, _ in told}, "the second session was told all again"
    assert not any(key.startswith("test") for key in keys_in([what for _, what in told]))
    assert all(what.get("metrics", {}) == {} for _, what in told)
    assert [name for name, result in without_ray if "test/recall@20" in result.get("metrics", {})] == [
        name for name, result in without_ray if "final" in name and result.get("done")
    ]


def test_a_finalist_that_fails_costs_its_place_and_not_the_sweep(
    tmp_path: Path, without_ray: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(config: RunConfig, **options: Any) -> Any:
        if config.name.startswith(f"small-final-{best:04d}") and config.seed == 44:
            raise RunError("loss=nan")
        return real_train(config, **options)

    real_train, best = process.train, 0
    config = small(tmp_path, [0.02, 0.01])
    alone = run_sweep(config.model_copy(update={"name": "alone"}))
    best, other = (candidate.number for candidate in alone.candidates)
    monkeypatch.setattr(process, "train", train)
    found = run_sweep(config)
    assert [candidate.number for candidate in found.candidates] == [other, best]
    assert found.candidates[1].seeds == (43,)
    failed = next(record for record in _records(found.folder) if record["state"] == "failed")
    assert (failed["role"], failed["reason"]) == ("final", "loss=nan")
    winner = load_config(RunConfig, [found.winner_file.removeprefix("file://")])
    assert winner.training.optimizer.learning_rate == found.candidates[0].overrides[RATE]


RATE = "training.optimizer.learning_rate"


def _records(folder: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(Path(folder.removeprefix("file://"), "trials.json").read_text())
    return found


def test_the_best_on_test_of_any_trial_is_found_and_leaves_nothing_with_the_trials(
    tmp_path: Path, without_ray: Seen
) -> None:
    config = small(tmp_path, [0.05, 0.02, 1e30], best_on_test=True, finalists={"candidates": 0})
    found = run_sweep(config)
    runs = tmp_path / "runs" / "small" / "runs"
    assert not list(runs.glob("*/evaluations")), "before anybody asks"
    by_hand = [
        braidrec.evaluate(f"small-trial-000{number}", storage=str(runs), at=(5, 20)).result.metrics for number in (1, 2)
    ]
    assert found.trials[2].state == "failed"
    assert set(found.best_on_test) == set(by_hand[0])
    for name, value in found.best_on_test.items():
        lower = name.startswith("gini")  # of how often items are recommended: even is good
        assert value == (min if lower else max)(each[name] for each in by_hand), name


def test_the_best_of_errors_is_the_lowest_and_what_cannot_be_evaluated_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = {"a": {"rmse": 1.2, "recall@20": 0.1}, "b": {"rmse": 0.9, "recall@20": 0.2}}

    def evaluate(run: str, **options: Any) -> Any:
        name = run.rpartition("/")[2]
        assert options["output"].endswith(f"on_test/{name}")
        if name not in figures:
            raise ConfigError("no run 'c'")
        return SimpleNamespace(result=SimpleNamespace(metrics=figures[name]))

    monkeypatch.setattr(on_test, "evaluate", evaluate)
    trials = [TrialRecord(name=name, number=1, role="trial", overrides={}, seed=1, state="finished") for name in "abc"]
    said: list[str] = []
    base = validate(RunConfig, planted_run(tmp_path), "test")
    found = on_test.best_on_test(SweepFolder(Location.of(tmp_path)), trials, base, said.append)
    assert found == {"rmse": 0.9, "recall@20": 0.2}
    assert said == ["best_on_test leaves c out: no run 'c'"]


def test_what_is_tested_at_the_end_is_tested_where_the_data_are_now_and_only_once(
    tmp_path: Path, without_ray: Seen, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = {"modalities": {"use": ["*"]}}
    run_sweep(small(tmp_path, [0.05], model=model, finalists={"candidates": 1, "seeds": 1, "missing": []}))
    (tmp_path / "data").rename(tmp_path / "moved")
    place = str(tmp_path / "runs" / "small")
    more = [f"run.data.path={tmp_path}/moved", "best_on_test=true", "finalists.missing=[1.0]"]
    capsys.readouterr()
    found = run_sweep(stored_config(place, more), resume="small")
    said = " ".join(capsys.readouterr().out.split())
    assert found.best_on_test and "leaves" not in said and "not tested" not in said
    (final,) = (tmp_path / "runs" / "small" / "runs").glob("*final*")
    assert list((final / "evaluations").glob("*drop*.json"))

    def evaluate(*_: Any, **__: Any) -> Any:
        raise AssertionError("it is known")

    monkeypatch.setattr(on_test, "evaluate", evaluate)
    assert run_sweep(stored_config(place), resume="small").best_on_test == found.best_on_test


def test_a_budget_that_is_shorter_than_a_trial_has_a_winner_and_a_larger_one_goes_on(
    tmp_path: Path, without_ray: Seen, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small(tmp_path, [0.02, 0.01], budget={"epochs": 2}, finalists={"candidates": 1, "seeds": 1})
    found = run_sweep(config)
    (record,) = found.trials
    assert (record.state, record.reason, record.epochs) == ("stopped_early", "budget.epochs=2 is used up", 2)
    assert found.candidates[0].number == 1 and found.candidates[0].tests
    assert "no trial was trained to its end" in " ".join(capsys.readouterr().out.split())
    # Nothing is given but the name: what is stored is what the sweep was last given.
    again = run_sweep(stored_config(str(tmp_path / "runs" / "small"), ["budget.epochs=6"]), resume="small")
    assert [(each.state, each.epochs) for each in again.trials] == [("finished", 3), ("finished", 3)]
    assert stored_config(str(tmp_path / "runs" / "small")).budget.epochs == 6


def test_what_is_refused_leaves_no_folder(tmp_path: Path, without_ray: Seen) -> None:
    for keys, wanted in (
        ({"scheduler": {"kind": "asha", "grace": 5}}, r"scheduler\.grace=5"),
        ({"run": {"tracking": {"enabled": True, "uri": "ftp://nowhere"}}}, r"run\.tracking\.uri='ftp://nowhere'"),
        ({"name": "a/b"}, "must consist of letters"),
    ):
        with pytest.raises(ConfigError, match=wanted):
            run_sweep(small(tmp_path, [0.02], **keys))
        assert not (tmp_path / "runs" / "small").exists()


def test_places_that_were_relative_are_stored_absolute(
    tmp_path: Path, without_ray: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"storage": "runs", "cache": "cache", "data": {**planted_run(tmp_path)["data"], "path": "data"}}
    run_sweep(small(tmp_path, [0.02], run={}, finalists={"candidates": 0}).model_copy(update={"run": {
        **small(tmp_path, [0.02]).run, **places
    }}))  # fmt: skip
    stored = stored_config("small").run
    assert [Path(str(stored[key])) for key in ("storage", "cache")] == [tmp_path / "runs", tmp_path / "cache"]
    assert Path(str(stored["data"]["path"])) == tmp_path / "data"  # type: ignore[call-overload, index]


@pytest.mark.slow
def test_what_mlflow_and_the_report_have_of_a_sweep(
    tmp_path: Path, without_ray: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that is refused before it has a run of its own, and a finalist's tests without its modalities."""
    real_task = Tasks.of

    def refuse_the_third(self: Tasks, record: TrialRecord) -> Any:
        if record.role == "trial" and record.number == 3:
            raise ConfigError("model.dim: must be even")
        return real_task(self, record)

    monkeypatch.setattr(Tasks, "of", refuse_the_third)
    config = small(
        tmp_path, [0.05, 0.02, 0.01], model={"modalities": {"use": ["*"]}}, best_on_test=True,
        finalists={"candidates": 2, "seeds": 2, "missing": [0.4, 1.0]},
        run={"tracking": {"system_metrics": False, "experiment": "inline"}},
    )  # fmt: skip
    found = run_sweep(config)
    reader = RunReader(f"sqlite:///{tmp_path}/runs/mlflow.db")
    runs = {run.name: run for run in reader.experiment("inline")}
    parent = runs.pop("small")
    assert set(runs) == {record["name"] for record in _records(found.folder)}
    for record in _records(found.folder):
        run = runs[record["name"]]
        assert run.tags["braidrec.trial_state"] == record["state"] and run.run_id == record["mlflow_run_id"]
        assert run.tags["mlflow.parentRunId"] == parent.run_id
        assert run.status == ("FAILED" if record["state"] == "failed" else "FINISHED")
    refused = runs["small-trial-0003"].tags
    assert refused["braidrec.failure"] == "model.dim: must be even" and refused[f"search.{RATE}"] == "0.01"
    assert parent.metrics["chosen_on_test/recall_at_20"] == pytest.approx(found.best_on_test["recall@20"])
    assert found.report is not None
    page = Path(found.report.removeprefix("file://")).read_text()
    assert "plot-missing-0" in page and "plot-missing-1" in page
    assert "Chosen on test, the best of any trial: " in page
    winner = Path(found.winner_file.removeprefix("file://")).read_text()
    assert Path(found.report.removeprefix("file://")).with_suffix(".winner.yaml").read_text() == winner
    for final in (name for name in runs if "final" in name):
        files = (tmp_path / "runs" / "small" / "runs" / final / "evaluations").glob("*.json")
        drops = [json.loads(file.read_text()) for file in files]
        assert len(drops) == 4 and all(math.isfinite(drop["result"]["metrics"]["recall@20"]) for drop in drops)
        assert {share for drop in drops for share in drop["drop_modality"].values()} == {0.4, 1.0}


@pytest.mark.parametrize("stop", [Stopped(15), KeyboardInterrupt()], ids=["signal", "as Ray hands it on"])
def test_a_sweep_that_is_stopped_goes_on_with_the_finalists_that_are_left(
    tmp_path: Path,
    without_ray: Seen,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stop: BaseException,
) -> None:
    def train(config: RunConfig, **options: Any) -> Any:
        started.append(str(config.name))
        if config.name == "small-final-0001-seed44" and started.count(config.name) == 1:
            raise_in_main.append(config.name)
        return real_train(config, **options)

    started: list[str] = []
    raise_in_main: list[str] = []
    real_train, real_saw = process.train, sweep_module.Sweeper.saw

    def saw(self: Any, record: TrialRecord) -> None:
        real_saw(self, record)
        if raise_in_main and record.epochs == 2:
            raise_in_main.clear()
            raise stop

    monkeypatch.setattr(process, "train", train)
    monkeypatch.setattr(sweep_module.Sweeper, "saw", saw)
    config = small(tmp_path, [0.02], finalists={"candidates": 1, "seeds": 3})
    with pytest.raises(Stopped):
        run_sweep(config)
    assert "go on with it:" in capsys.readouterr().out
    states = {record["name"]: record["state"] for record in _records(str(tmp_path / "runs" / "small"))}
    assert states["small-final-0001-seed44"] == "running" and "small-final-0001-seed45" not in states
    before = len(started)
    found = run_sweep(config, resume="small")
    assert started[before:] == ["small-final-0001-seed44", "small-final-0001-seed45"]
    assert found.candidates[0].seeds == (43, 44, 45)
