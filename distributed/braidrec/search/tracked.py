"""The sweep's side of MLflow: a parent run, the tags of its children, and nothing at all if tracking is off."""

import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from braidrec.config.load import to_yaml
from braidrec.config.run import RunConfig
from braidrec.config.sweep import SweepConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.errors import RunError
from braidrec.search.folder import SweepFolder
from braidrec.search.records import TrialRecord
from braidrec.tracking.messages import RunIdentity, Status
from braidrec.tracking.naming import redact
from braidrec.tracking.reader import WINNER_TAG
from braidrec.tracking.run import DatasetLineage, MlflowRun, key_of
from braidrec.tracking.store import artifact_location
from braidrec.tracking.trials import WAIT_SECONDS, TrialRuns
from braidrec.training.events import EpochEnd
from braidrec.training.run_folder import RunFolder
from braidrec.training.tracked import RUN_FILE, files_on_their_way, tracking_uri_of

SECONDS_FOR_THE_SERVER = 60.0
STATUS: dict[str, Status] = {"finished": "FINISHED", "stopped_early": "FINISHED", "failed": "FAILED"}
"""MLflow's status of a training by its state."""
REASON = {"failed": "braidrec.failure", "stopped_early": "braidrec.stopped"}
"""The tag with the reason of a state. A training that was cut off may go on and end in another one."""


class TrackedSweep:
    """The MLflow run of a sweep.

    Args:
        base: any run of the sweep, with absolute places; its tracking keys count.
        folder: of the sweep.
        inform: receives sentences for a person.
    Raises:
        ConfigError: see `tracking_uri_of`.
    """

    def __init__(self, base: RunConfig, folder: SweepFolder, inform: Callable[[str], None]) -> None:
        self._folder, self._inform = folder, inform
        self._parent: MlflowRun | None = None
        self._children: TrialRuns | None = None
        self._tracking = base.tracking
        self.uri = tracking_uri_of(base, "run.")
        self._dataset = ""
        if self.uri is None:
            return
        self._parent = MlflowRun(
            uri=self.uri,
            experiment=base.tracking.experiment,
            run_name=folder.name,
            outbox_path=files_on_their_way(folder.location) / "mlflow_outbox.jsonl",
            run_key=folder.key,
            tags={**base.tracking.tags, "braidrec.kind": "sweep", "braidrec.sweep": folder.name},
            system_metrics=base.tracking.system_metrics,
            flush_seconds=base.tracking.flush_seconds,
            artifacts=base.tracking.artifacts,
            inform=inform,
        )
        self._children = TrialRuns(self.uri, inform)

    @property
    def run_id(self) -> str | None:
        return None if self._parent is None else self._parent.run_id

    def start(self, sweep: SweepConfig, dataset: DatasetFolder) -> None:
        """Begin the parent run, and wait for its id, which its children name.

        Raises:
            RunError: the tracking server does not answer.
        """
        self._dataset = dataset.digest
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
        own = (
            {"braidrec.trial": str(record.number)}
            if record.role == "trial"
            else {"braidrec.candidate": str(record.number), "braidrec.seed": str(record.seed)}
        )
        parent = {} if self.run_id is None else {"mlflow.parentRunId": self.run_id}
        searched = {f"search.{key}": _text(value) for key, value in record.overrides.items()}
        return {**parent, "braidrec.kind": record.role, "braidrec.sweep": self._folder.name, **own, **searched}

    def best(self, number: int, metric: str, score: float) -> None:
        """The best score so far, at a trial's number."""
        if self._parent is not None:
            self._parent.handle(EpochEnd(epoch=number, metrics={f"best/{metric}": score}))

    def settle(self, record: TrialRecord, *, for_good: bool = False) -> None:
        """Write a record's final state into the run of its training, whose id the training has left in its folder.

        A training that ended before it had a run, such as one that was refused, is given one: MLflow shows it too.

        Args:
            for_good: no process of it is left; a run that is still open is closed.
        """
        if self._children is None:
            return
        record.mlflow_run_id = self._run_id_of(record) or record.mlflow_run_id
        values: dict[str, str | None] = {"braidrec.trial_state": record.state, **dict.fromkeys(REASON.values())}
        if record.state in REASON:
            values[REASON[record.state]] = record.reason
        status = STATUS[record.state]
        if record.mlflow_run_id is not None:
            end_as = status if for_good or record.state == "failed" else None
            self._children.settle(record.mlflow_run_id, values, end_as)
        elif for_good or record.state == "failed":
            self._children.make(self._identity_of(record), values, status, partial(setattr, record, "mlflow_run_id"))

    def _identity_of(self, record: TrialRecord) -> RunIdentity:
        """By which the run of a training is found, as the training itself would look for it."""
        assert self.uri is not None
        return RunIdentity(
            uri=self.uri,
            experiment=self._tracking.experiment,
            artifact_location=artifact_location(self.uri, self._tracking.artifacts),
            run_name=record.name,
            key=key_of(RunFolder(self._folder.runs.child(record.name)).key),
            run_id=None,
            start_time=int(time.time() * 1000),
            tags={**self._tracking.tags, **self.tags_of(record), "braidrec.dataset.digest": self._dataset},
        )

    def leave_off(self, record: TrialRecord) -> None:
        """The run of a training that this process leaves unfinished; one is made where it had not come that far."""
        if self._children is None:
            return
        run_id = self._run_id_of(record)
        if run_id is not None:
            self._children.settle(run_id, {}, "KILLED")
        else:
            self._children.make(self._identity_of(record), {}, "KILLED", partial(setattr, record, "mlflow_run_id"))

    def write_report(self, file: Location, winner: str, on_test: Mapping[str, float]) -> str | None:
        """The report of the sweep, as a file and as an artefact; None where it is not tracked, or could not be written.

        Made from what MLflow has, like that of any other comparison. A report that fails costs no result.

        Args:
            file: of the report.
            winner: the winner's configuration.
            on_test: metric → highest of any trial, chosen on test.
        """
        if self._children is None or self.uri is None or self.run_id is None:
            return None
        from braidrec.search.report import write_report

        local = Path(file.path) if file.is_local else files_on_their_way(self._folder.location) / file.name
        try:
            write_report(self.run_id, self.uri, local, winner_yaml=winner, best_on_test=on_test)
            if not file.is_local:
                file.write_bytes(local.read_bytes())
        except Exception as error:  # whatever is wrong with it, the sweep has its winner
            self._inform(f"no report was written: {type(error).__name__}: {error}")
            return None
        self.log(Location.of(local))
        return file.path if file.is_local else file.uri

    def wait(self) -> None:
        """Until MLflow has all that was settled so far, or does not answer."""
        if self._children is not None and not self._children.wait():
            self._inform("MLflow is slow: a report may lack what it has not stored yet; jobs/compare.py makes it anew")

    def log(self, *files: Location) -> None:
        """Files of the sweep as artefacts of the parent run."""
        for file in files:
            if self._parent is not None and file.is_file():
                self._parent.log_artifact(file.uri)

    def log_summary(self, metrics: Mapping[str, float], winner: int) -> None:
        """Figures of the whole sweep, and which trial won."""
        if self._parent is not None:
            self._parent.handle(EpochEnd(epoch=winner, metrics=metrics))
            self._parent.log_tags({WINNER_TAG: str(winner)})

    def finish(self, status: Status, reason: str | None = None, flush_seconds: float | None = None) -> None:
        """End the parent run.

        Args:
            flush_seconds: how long MLflow is waited for, first for the runs of trials and then for its own; None: as
                long as each usually is.
        """
        if self._children is not None:
            self._children.close(WAIT_SECONDS if flush_seconds is None else flush_seconds)
        if self._parent is not None:
            self._parent.finish(status, reason, flush_seconds)

    def _run_id_of(self, record: TrialRecord) -> str | None:
        known = RunFolder(self._folder.runs.child(record.name)).read_json(RUN_FILE)
        return None if known is None else str(known["run_id"])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
