"""The sweep's side of MLflow where it is away at the wrong moment, or where runs are on remote storage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs as pafs
from search_cases import ended, planted_run, sweep_config

from braidrec.config.load import ConfigError, validate
from braidrec.config.run import RunConfig
from braidrec.data.storage import Location
from braidrec.search import report as report_module
from braidrec.search.folder import SweepFolder, stored_config
from braidrec.search.records import TrialRecord
from braidrec.search.tracked import TrackedSweep
from braidrec.tracking.messages import RunIdentity
from braidrec.tracking.trials import WAIT_SECONDS
from braidrec.training.run_folder import RunFolder
from braidrec.training.tracked import tracking_uri_of

Values = dict[str, str | None]
Settled = list[tuple[Any, Values, str | None]]
NO_REASON: Values = {"braidrec.failure": None, "braidrec.stopped": None}


class Children:
    """Remembers what it is told, and says that a run that is made is called "made"."""

    def __init__(self) -> None:
        self.settled: Settled = []
        self.made: list[RunIdentity] = []
        self.waited: list[float] = []

    def settle(self, run_id: str, values: Values, end_as: str | None = None) -> None:
        self.settled.append((run_id, values, end_as))

    def make(self, identity: RunIdentity, values: Values, end_as: str, on_run_id: Callable[[str], None]) -> None:
        self.made.append(identity)
        self.settled.append((None, values, end_as))
        on_run_id("made")

    def wait(self) -> bool:
        return True

    def close(self, seconds: float) -> None:
        self.waited.append(seconds)


def tracked_sweep(tmp_path: Path, place: Location) -> tuple[TrackedSweep, SweepFolder, Children, list[str]]:
    folder = SweepFolder(place)
    place.filesystem.create_dir(place.path, recursive=True)
    folder.begin(sweep_config({"a": {"choice": [1]}}, name=folder.name), {}, "digest")
    tracking = {"uri": f"sqlite:///{tmp_path}/mlflow.db", "tags": {"mine": "yes"}}
    base = validate(RunConfig, planted_run(tmp_path, tracking=tracking), "test")
    said: list[str] = []
    tracked, children = TrackedSweep(base, folder, said.append), Children()
    tracked._children = children  # type: ignore[assignment]
    return tracked, folder, children, said


@pytest.fixture
def swept(tmp_path: Path) -> tuple[TrackedSweep, SweepFolder, Children, list[str]]:
    return tracked_sweep(tmp_path, Location.of(tmp_path / "sweep"))


def learn_id(folder: SweepFolder, record: TrialRecord, run_id: str) -> None:
    """As the training does when MLflow answers it."""
    place = folder.runs.child(record.name)
    place.filesystem.create_dir(place.path, recursive=True)
    RunFolder(place).write_json("mlflow.json", {"run_id": run_id})


def test_a_state_that_could_not_be_written_at_first_is_written_at_the_end(swept: Any) -> None:
    tracked, folder, children, _ = swept
    record = ended(1, {"a": 1}, 0.5)
    tracked.settle(record)
    assert children.settled == [] and record.mlflow_run_id is None, "MLflow has not answered the training yet"
    learn_id(folder, record, "r1")
    tracked.settle(record, for_good=True)
    assert children.settled == [("r1", {"braidrec.trial_state": "finished", **NO_REASON}, "FINISHED")]
    assert record.mlflow_run_id == "r1"


@pytest.mark.parametrize(
    ("state", "reason", "values", "end_as"),
    [
        ("failed", "loss=nan", {"braidrec.trial_state": "failed", "braidrec.failure": "loss=nan"}, "FAILED"),
        ("stopped_early", "late", {"braidrec.trial_state": "stopped_early", "braidrec.stopped": "late"}, "FINISHED"),
    ],
)
def test_states_and_reasons(swept: Any, state: str, reason: str, values: Values, end_as: str) -> None:
    tracked, folder, children, _ = swept
    record = ended(1, {}, 0.5, state)
    record.reason = reason
    learn_id(folder, record, "r1")
    tracked.settle(record)
    tracked.settle(record, for_good=True)
    # While the sweep runs, only a failed training is closed: others close their run themselves.
    values = {**NO_REASON, **values}
    assert children.settled == [("r1", values, "FAILED" if state == "failed" else None), ("r1", values, end_as)]


@pytest.mark.parametrize("prefix", ["", "run."])
def test_a_place_that_mlflow_cannot_use_is_named_once_by_its_key(tmp_path: Path, prefix: str) -> None:
    for tracking, wanted in (({"uri": "ftp://nowhere"}, "tracking.uri='ftp"), ({}, "storage='s3://bucket' is remote")):
        base = validate(RunConfig, {**planted_run(tmp_path), "storage": "s3://bucket", "tracking": tracking}, "test")
        with pytest.raises(ConfigError) as refused:
            tracking_uri_of(base, prefix)
        assert str(refused.value).startswith(prefix + wanted)
    off = validate(RunConfig, {**planted_run(tmp_path), "tracking": {"enabled": False, "uri": "ftp://nowhere"}}, "test")
    assert tracking_uri_of(off, prefix) is None


def test_a_killed_driver_waits_for_mlflow_no_longer_than_it_may(swept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tracked, _, children, _ = swept
    given: list[float | None] = []
    monkeypatch.setattr(tracked._parent, "finish", lambda status, reason, seconds: given.append(seconds))
    tracked.finish("KILLED", "stopped by SIGTERM", 2.0)
    tracked.finish("FINISHED")
    assert children.waited == [2.0, WAIT_SECONDS] and given == [2.0, None]


def test_a_trial_that_fails_before_it_has_a_run_is_given_one_that_the_training_would_find(swept: Any) -> None:
    tracked, _, children, _ = swept
    record = ended(3, {"a": 1}, None, "failed")
    record.reason = "refused"
    tracked.settle(record)
    (identity,) = children.made
    assert (identity.run_name, identity.experiment, record.mlflow_run_id) == ("trial-3", "braidrec", "made")
    assert identity.tags["search.a"] == "1" and identity.tags["mine"] == "yes"
    assert identity.tags["braidrec.kind"] == "trial" and identity.tags["braidrec.sweep"] == "sweep"
    tracked.settle(record, for_good=True)
    assert len(children.made) == 1 and children.settled[-1][0] == "made", "one run, not two"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """A folder on storage that is not this machine's: nothing can be opened by its path alone."""
    (tmp_path / "bucket").mkdir()
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    real = Location.of

    def of(place: Any) -> Location:
        text = str(place)
        if text.startswith("mock://"):
            return Location(uri=text, filesystem=store, path=text.removeprefix("mock://"))
        return real(place)

    monkeypatch.setattr(Location, "of", staticmethod(of))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return of("mock://bucket/mine")


def test_a_sweep_on_remote_storage_goes_on_by_its_uri(tmp_path: Path, remote: Location) -> None:
    tracked_sweep(tmp_path, remote)
    config = stored_config("mock://bucket/mine", ["budget.trials=7", "concurrency=2"])
    assert (config.name, config.budget.trials, config.concurrency) == ("mine", 7, 2)


def test_a_sweep_on_remote_storage_has_its_report_there_and_in_mlflow(
    tmp_path: Path, remote: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_report(sweep: str, uri: str, target: Path, **told: Any) -> None:
        assert told == {"winner_yaml": "seed: 3\n", "best_on_test": {"recall@20": 0.5}}
        target.write_text(f"report of {sweep}")

    tracked, folder, _, said = tracked_sweep(tmp_path, remote)
    assert tracked._parent is not None
    tracked._parent.run_id = "abc"
    logged: list[str] = []
    monkeypatch.setattr(tracked._parent, "log_artifact", logged.append)
    monkeypatch.setattr(report_module, "write_report", write_report)
    file = folder.location.child("report.html")
    assert tracked.write_report(file, "seed: 3\n", {"recall@20": 0.5}) == "mock://bucket/mine/report.html"
    assert file.read_bytes() == b"report of abc" and said == []
    (local,) = logged
    assert Path(local).read_text() == "report of abc" and Path(local).name == "report.html"
