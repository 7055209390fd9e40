"""`python jobs/sweep.py`: six trials of which two diverge and one is stopped early; the process of a trial is killed,
then the driver; what `--resume` goes on with is ended by SIGTERM while a finalist trains; `--resume` ends the sweep.
Every start of Ray takes many seconds: one sweep goes through all of it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from ray_processes import PATIENCE, Surroundings, named, surroundings

from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.tracking.store import connect

ROOT = Path(__file__).resolve().parents[2]
TRIAL_PROCESS = "ray::ResourceTrainable"
KILLED_AFTER = 3
SECONDS = 500

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * SECONDS)]

Records = dict[str, dict[str, Any]]


def sweep(folder: Path) -> dict[str, Any]:
    """A grid in which trials 3 and 6 have a learning rate with which the first step overflows, and 5 one dimension."""
    return {
        "name": "small",
        "run": {
            "storage": str(folder / "runs"),
            "data": {
                "path": str(folder / "data"),
                "planted": {"users": 200, "items": 120, "interactions": 3000},
            },
            "model": {"encoder": {"kind": "lightgcn", "layers": 1}},
            "training": {"epochs": 40, "batch_size": 512, "optimizer": {"learning_rate": 0.01}},
            "evaluation": {"patience": None},
            "tracking": {"system_metrics": False, "experiment": "searches"},
        },
        "space": {
            "model.dim": {"choice": [32, 24, 16, 1]},
            "training.optimizer.learning_rate": {"choice": [0.01, 1e30], "when": {"model.dim": [24, 1]}},
        },
        "algorithm": {"kind": "grid"},
        "scheduler": {"kind": "asha", "grace": 2, "reduction": 2},
        "finalists": {"candidates": 1, "seeds": 2},
        "best_on_test": True,
    }


@dataclass(frozen=True, kw_only=True)
class Course:
    """What happened."""

    folder: Path
    killed_trial: str
    at_the_kill: Records
    """trials.json by name, when the driver was killed."""
    curves_at_the_kill: dict[str, str]
    """metrics.jsonl of the trials that had ended by then."""
    stopped: tuple[int, str]
    """Of the driver that was ended by SIGTERM."""
    at_the_stop: Records
    epochs_at_the_stop: dict[str, int]
    """How far the finalists had come by then, by the runs' own records."""
    statuses_at_the_stop: dict[str, str]
    """By name, MLflow's status of every run then."""
    exit_status: int
    output: str
    refused: tuple[int, str]
    """Of an attempt to go on with another space."""

    @property
    def records(self) -> Records:
        return records_of(self.folder)

    def curve(self, name: str) -> str:
        return (self.folder / "runs" / "small" / "runs" / name / "metrics.jsonl").read_text()


def records_of(folder: Path) -> Records:
    file = folder / "runs" / "small" / "trials.json"
    return {record["name"]: record for record in json.loads(file.read_text())} if file.is_file() else {}


def ended(folder: Path) -> list[str]:
    return [name for name, record in records_of(folder).items() if record["state"] != "running"]


def start(around: Surroundings, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "jobs/sweep.py", *arguments],
        env={**around.environment, **PATIENCE},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], Any], driver: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
    return found


def kill_a_trial(folder: Path, driver: subprocess.Popen[str]) -> str:
    """Kill the process that trains, once it has a checkpoint to go on from; the name of its trial."""
    name, pid = wait_for(lambda: training_now(folder, driver, "trial"), driver)
    os.kill(pid, signal.SIGKILL)
    return str(name)


def training_now(folder: Path, driver: subprocess.Popen[str], role: str) -> tuple[str, int] | None:
    """The name and the process of what trains, once it is under way."""
    own = {process.pid for process in named(driver.pid, TRIAL_PROCESS)}
    for lease in (folder / "runs" / "small" / "runs").glob(f"*-{role}-*/lease.json"):
        with suppress(OSError, ValueError, KeyError):
            pid = int(json.loads(lease.read_text())["owner"]["pid"])
            lines = (lease.parent / "metrics.jsonl").read_text().splitlines()
            if pid in own and 3 <= len(lines) < 30:
                return lease.parent.name, pid
    return None


def epochs_of_finalists(folder: Path) -> dict[str, int]:
    """By name, how many epochs the run's metrics have."""
    found = {}
    for run in (folder / "runs" / "small" / "runs").glob("*-final-*"):
        file = run / "metrics.jsonl"
        found[run.name] = len(file.read_text().splitlines()) if file.is_file() else 0
    return found


def statuses(folder: Path) -> dict[str, str]:
    """By name, the status of every run in MLflow."""
    client = connect(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("searches")
    return {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "sweep.yaml").write_text(yaml.safe_dump(sweep(folder)))
    with surroundings(folder) as around:
        driver = start(around, "--config", str(folder / "sweep.yaml"))
        killed_trial = kill_a_trial(folder, driver)
        wait_for(lambda: len(ended(folder)) >= KILLED_AFTER, driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        for process in around.processes():  # a machine that was switched off leaves none either
            with suppress(psutil.Error):
                process.kill()
        at_the_kill = records_of(folder)
        course = {
            "folder": folder,
            "killed_trial": killed_trial,
            "at_the_kill": at_the_kill,
            "curves_at_the_kill": {
                name: (folder / "runs" / "small" / "runs" / name / "metrics.jsonl").read_text()
                for name, record in at_the_kill.items()
                if record["state"] == "finished"
            },
        }
        place = str(folder / "runs" / "small")
        other = start(around, "--resume", place, "--set", "seed=5")
        output = other.communicate(timeout=SECONDS)[0]
        stopped = start(around, "--resume", place)
        wait_for(lambda: training_now(folder, stopped, "final"), stopped)
        stopped.send_signal(signal.SIGTERM)
        said = stopped.communicate(timeout=SECONDS)[0]
        course |= {
            "stopped": (stopped.returncode, said),
            "at_the_stop": records_of(folder),
            "epochs_at_the_stop": epochs_of_finalists(folder),
            "statuses_at_the_stop": statuses(folder),
        }
        resumed = start(around, "--resume", place)
        yield Course(
            **course,  # type: ignore[arg-type]
            refused=(other.returncode, output),
            output=resumed.communicate(timeout=2 * SECONDS)[0],
            exit_status=resumed.returncode,
        )


def test_every_trial_ends_as_it_must(course: Course) -> None:
    assert course.exit_status == 0, course.output
    states = {record["number"]: record["state"] for record in course.records.values() if record["role"] == "trial"}
    assert sorted(states) == [1, 2, 3, 4, 5, 6]
    assert [number for number, state in states.items() if state == "failed"] == [3, 6]
    assert states[5] == "stopped_early", "one dimension is worse than sixteen"
    assert "finished" in states.values()
    reasons = [course.records[f"small-trial-000{number}"]["reason"] for number in (3, 6)]
    assert all("try a lower training.optimizer.learning_rate" in reason for reason in reasons)


def test_finished_trials_are_not_repeated(course: Course) -> None:
    assert course.curves_at_the_kill, "at least one had finished"
    for name, curve in course.curves_at_the_kill.items():
        assert course.curve(name) == curve
        assert course.records[name] == course.at_the_kill[name]
    known = sum(each["state"] != "running" for each in course.at_the_kill.values())
    assert f"{known} known" in course.stopped[1]


def test_a_trial_whose_process_was_killed_goes_on_from_its_checkpoint(course: Course) -> None:
    record = course.records[course.killed_trial]
    assert record["state"] in ("finished", "stopped_early")
    epochs = [json.loads(line)["epoch"] for line in course.curve(course.killed_trial).splitlines()]
    assert epochs == list(range(1, record["epochs"] + 1))
    assert [epoch for epoch, _ in record["curve"]] == epochs
    assert went_on_after(course, course.killed_trial) >= 2, "it did not begin anew"


def went_on_after(course: Course, name: str) -> int:
    """The epoch after which a run says that it was continued; 0: it does not say so."""
    client = connect(f"sqlite:///{course.folder}/runs/mlflow.db")
    run_id = course.records[name]["mlflow_run_id"]
    notes = ""
    for file in client.list_artifacts(run_id, "notes"):
        notes += Path(client.download_artifacts(run_id, file.path)).read_text()
    found = re.findall(r"continuing after epoch (\d+) from", notes)
    return int(found[0]) if found else 0


def test_a_driver_that_is_asked_to_end_leaves_nothing_running_and_says_how_to_go_on(course: Course) -> None:
    status, output = course.stopped
    assert status == 128 + signal.SIGTERM, output
    assert "go on with it:" in output and "--resume" in output
    assert course.statuses_at_the_stop["small"] == "KILLED"
    left = [name for name, record in course.at_the_stop.items() if record["state"] == "running"]
    assert left and all(course.at_the_stop[name]["role"] == "final" for name in left)
    assert {course.statuses_at_the_stop[name] for name in left} == {"KILLED"}
    assert "RUNNING" not in course.statuses_at_the_stop.values()
    come = {name: course.epochs_at_the_stop[name] for name in left}
    assert 3 <= max(come.values()) < 40, "one of them was under way"
    for name, epochs in come.items():  # a result may have been on its way to the driver
        assert abs(course.at_the_stop[name]["epochs"] - epochs) <= 2, "how far it had come is written down"


def test_the_finalists_that_were_left_go_on_and_the_search_is_not_repeated(course: Course) -> None:
    left = [name for name, record in course.at_the_stop.items() if record["state"] == "running"]
    assert {course.records[name]["state"] for name in left} == {"finished"}
    assert max(went_on_after(course, name) for name in left) >= 2, "one of them had three epochs behind it"
    for name in course.at_the_stop.keys() - set(left):
        assert course.records[name] == course.at_the_stop[name]
    assert "6 known from before" in course.output


def test_another_search_is_refused(course: Course) -> None:
    status, output = course.refused
    assert status == 2
    assert "seed: 0 then, 5 now" in output


def test_the_tree_in_mlflow(course: Course) -> None:
    client = connect(f"sqlite:///{course.folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("searches")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    parent = runs.pop("small")
    assert set(runs) == set(course.records)
    assert parent.data.tags["braidrec.kind"] == "sweep" and parent.info.status == "FINISHED"
    artefacts = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert {"config.yaml", "search_space.json", "trials.json", "winner.yaml"} <= artefacts
    for name, run in runs.items():
        record, tags = course.records[name], run.data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert tags["braidrec.trial_state"] == record["state"]
        assert run.info.status == ("FAILED" if record["state"] == "failed" else "FINISHED")
        assert record["mlflow_run_id"] == run.info.run_id
        assert tags["search.model.dim"] == str(record["overrides"]["model.dim"])
    found = client.search_runs(
        [experiment.experiment_id], "tags.`search.model.dim` = '24' and tags.`braidrec.kind` = 'trial'"
    )
    assert {run.data.tags["braidrec.trial"] for run in found} == {"2", "3"}
    failed = runs["small-trial-0003"].data.tags
    assert failed["braidrec.failure"] == course.records["small-trial-0003"]["reason"]


def test_only_final_runs_were_tested(course: Course) -> None:
    client = connect(f"sqlite:///{course.folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("searches")
    finals = [record for record in course.records.values() if record["role"] == "final"]
    assert [record["seed"] for record in finals] == [43, 44]
    for run in client.search_runs([experiment.experiment_id]):
        tested = any(name.startswith("test/") for name in run.data.metrics)
        assert tested == (run.data.tags["braidrec.kind"] == "final")
    for record in course.records.values():
        folder = course.folder / "runs" / "small" / "runs" / record["name"]
        assert (folder / "per_user").is_dir() == (record["role"] == "final")
        assert ("test/" in json.dumps(record)) == (record["role"] == "final")


def test_the_winner_is_a_run_that_can_be_started(course: Course) -> None:
    config = load_config(RunConfig, [course.folder / "runs" / "small" / "winner.yaml"])
    candidates = json.loads((course.folder / "runs" / "small" / "candidates.json").read_text())
    best = max(
        (record for record in course.records.values() if record["role"] == "trial" and record["state"] == "finished"),
        key=lambda record: record["score"],
    )
    assert candidates[0]["number"] == best["number"]
    assert config.model.dim == best["overrides"]["model.dim"]
    assert config.evaluation.test and config.name is None
    assert "chosen on test" in course.output and "winner, trial" in course.output


def test_nothing_of_tune_is_left(course: Course) -> None:
    left = [path for path in (course.folder / "runs" / "small").rglob("*") if path.suffix in (".pkl", ".pickle")]
    assert left == []
