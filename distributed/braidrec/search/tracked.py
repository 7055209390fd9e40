"""The sweep's side of MLflow: a parent run, the tags of its children, and nothing at all if tracking is off."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from braidrec.config.load import ConfigError, to_yaml
from braidrec.config.run import RunConfig
from braidrec.config.sweep import SweepConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.errors import RunError
from braidrec.search.folder import SweepFolder
from braidrec.search.records import TrialRecord
from braidrec.tracking.messages import Status
from braidrec.tracking.naming import redact
from braidrec.tracking.run import DatasetLineage, MlflowRun
from braidrec.tracking.store import absolute_tracking_uri, default_tracking_uri
from braidrec.tracking.trials import TrialRuns
from braidrec.training.events import EpochEnd
from braidrec.training.tracked import RUN_FILE

SECONDS_FOR_THE_SERVER = 60.0
STATUS: dict[str, Status] = {"finished": "FINISHED", "stopped_early": "FINISHED", "failed": "FAILED"}


class TrackedSweep:
    """The MLflow run of a sweep.

    Args:
        base: any run of the sweep, with absolute places; its tracking keys count.
        folder: of the sweep.
        inform: receives sentences for a person.
    Raises:
        ConfigError: remote storage without a tracking URI.
    """

    def __init__(self, base: RunConfig, folder: SweepFolder, inform: Callable[[str], None]) -> None:
        self._folder, self._inform = folder, inform
        self._parent: MlflowRun | None = None
        self._children: TrialRuns | None = None
        self.uri: str | None = None
        tracking = base.tracking
        if not tracking.enabled:
            return
        try:
            self.uri = absolute_tracking_uri(tracking.uri or default_tracking_uri(base.storage))
            self._parent = MlflowRun(
                uri=self.uri,
                experiment=tracking.experiment,
                run_name=folder.name,
                outbox_path=_outbox(folder),
                run_key=folder.key,
                tags={**tracking.tags, "braidrec.kind": "sweep", "braidrec.sweep": folder.name},
                system_metrics=tracking.system_metrics,
                flush_seconds=tracking.flush_seconds,
                artifacts=tracking.artifacts,
                inform=inform,
            )
        except ValueError as error:
            raise ConfigError(f"run.tracking.uri: {error}") from None
        self._children = TrialRuns(self.uri, inform)

    @property
    def run_id(self) -> str | None:
        return None if self._parent is None else self._parent.run_id

    def start(self, sweep: SweepConfig, dataset: DatasetFolder) -> None:
        """Begin the parent run, and wait for its id, which its children name.

        Raises:
            RunError: the tracking server does not answer.
        """
        if self._parent is None:
            return
        self._parent.start(
            config=sweep.to_plain(),
            config_yaml=to_yaml(sweep),
            dataset=DatasetLineage(name=dataset.location.name, path=dataset.path, digest=dataset.digest),
        )
        self._parent.log_artifact(self._folder.location.child("search_space.json").uri)
        deadline = time.monotonic() + SECONDS_FOR_THE_SERVER
        while self._parent.run_id is None:
            if time.monotonic() > deadline:
                raise RunError(
                    f"MLflow at {redact(self.uri or '')} does not answer, and the runs of trials must name their "
                    "sweep: start the server and --resume, or set run.tracking.enabled=false"
                )
            time.sleep(0.05)

    def tags_of(self, record: TrialRecord) -> dict[str, str]:
        """What the run of a training is found by."""
        kind = {"trial": "trial", "final": "final"}[record.role]
        own = (
            {"braidrec.trial": str(record.number)}
            if record.role == "trial"
            else {"braidrec.candidate": str(record.number), "braidrec.seed": str(record.seed)}
        )
        parent = {} if self.run_id is None else {"mlflow.parentRunId": self.run_id}
        searched = {f"search.{key}": _text(value) for key, value in record.overrides.items()}
        return {**parent, "braidrec.kind": kind, "braidrec.sweep": self._folder.name, **own, **searched}

    def best(self, number: int, metric: str, score: float) -> None:
        """The best score so far, at a trial's number."""
        if self._parent is not None:
            self._parent.handle(EpochEnd(epoch=number, metrics={f"best/{metric}": score}))

    def settle(self, record: TrialRecord) -> None:
        """Write a record's final state into the run of its training, whose id the training has left in its folder."""
        if self._children is None:
            return
        record.mlflow_run_id = self._run_id_of(record)
        if record.mlflow_run_id is not None:
            reason = {"braidrec.failure": record.reason} if record.state == "failed" and record.reason else {}
            stopped = {"braidrec.stopped": record.reason} if record.state == "stopped_early" and record.reason else {}
            self._children.settle(
                record.mlflow_run_id,
                {"braidrec.trial_state": record.state, **reason, **stopped},
                "FAILED" if record.state == "failed" else None,
            )

    def leave_off(self, record: TrialRecord) -> None:
        """The run of a training that this process leaves unfinished."""
        run_id = self._run_id_of(record)
        if self._children is not None and run_id is not None:
            self._children.settle(run_id, {}, "KILLED")

    def write_report(self, file: Location) -> str | None:
        """The report of the sweep, as a file and as an artefact; None where it is not tracked, or could not be written.

        Made from what MLflow has, like that of any other comparison. A report that fails costs no result.
        """
        if self._children is None or self.uri is None or self.run_id is None or not file.is_local:
            return None
        from braidrec.search.report import write_report

        self._children.wait()
        try:
            written = write_report(self.run_id, self.uri, Path(file.path))
        except Exception as error:  # whatever is wrong with it, the sweep has its winner
            self._inform(f"no report was written: {type(error).__name__}: {error}")
            return None
        self.log(file)
        return str(written)

    def log(self, *files: Location) -> None:
        """Files of the sweep as artefacts of the parent run."""
        for file in files:
            if self._parent is not None and file.is_file():
                self._parent.log_artifact(file.uri)

    def log_summary(self, metrics: dict[str, float], tags: dict[str, str], step: int) -> None:
        """Figures and tags of the whole sweep."""
        if self._parent is not None:
            self._parent.handle(EpochEnd(epoch=step, metrics=metrics))
            self._parent.log_tags(tags)

    def finish(self, status: Status, reason: str | None = None, flush_seconds: float | None = None) -> None:
        """End the parent run."""
        if self._children is not None:
            self._children.close()
        if self._parent is not None:
            self._parent.finish(status, reason, flush_seconds)

    def _run_id_of(self, record: TrialRecord) -> str | None:
        known = self._folder.runs.child(f"{record.name}/{RUN_FILE}")
        if not known.is_file():
            return None
        return str(json.loads(known.read_bytes())["run_id"])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _outbox(folder: SweepFolder) -> Path:
    name = "mlflow_outbox.jsonl"
    if folder.location.is_local:
        return Path(folder.location.path) / name
    place = Path.home() / ".cache" / "braidrec" / "outbox" / folder.name
    place.mkdir(parents=True, exist_ok=True)
    return place / name
