"""One training as one MLflow run, logged by the driver and by no other process."""

import logging
import shlex
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from braidrec.tracking.curves import History, write_curves
from braidrec.tracking.messages import (
    Dataset,
    EarlierMetrics,
    End,
    LocalFile,
    Message,
    MetricPoint,
    Metrics,
    Model,
    Parameters,
    RunIdentity,
    Status,
    Tags,
    Text,
)
from braidrec.tracking.naming import metric_name, parameters, redact
from braidrec.tracking.outbox import Outbox
from braidrec.tracking.outbox_file import free_path, write_outbox
from braidrec.tracking.owner import Owner
from braidrec.tracking.sender import Sender
from braidrec.tracking.source import library_revision
from braidrec.tracking.store import absolute_tracking_uri, artifact_location
from braidrec.tracking.system import SystemSampler
from braidrec.training.events import EpochEnd, Event, Finished, Note, Progress, Started

MAX_ARTIFACT_BYTES = 256 * 2**20
_MAX_WAITING = 20_000
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DatasetLineage:
    """The data set that is trained on: its name, its URI or absolute path, and the hash of its content.

    Attributes:
        features: where the vectors come from, by modality that the training uses, as `dataset.json` says.
    """

    name: str
    path: str
    digest: str
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrackingOutcome:
    """What became of the run's messages."""

    run_id: str | None
    """None: the server was never there."""
    unsent: int
    outbox: Path | None
    """Where the unsent ones are kept."""


class MlflowRun:
    """A listener that logs a training. None of its methods waits for the server, except `finish`, which is bounded.

    Args:
        uri: tracking URI; see `default_tracking_uri`.
        experiment: name of the experiment, created if missing.
        run_name: name of the run.
        outbox_path: file for what could not be sent by the end; a number is added where it exists.
        run_key: what stays the same when this run is resumed, such as the URI of its folder. A run of the same key is
            continued, also when its id was never learnt. None: a new run.
        existing_run_id: MLflow's id of the run to continue, where known.
        tags: the user's tags.
        system_metrics: sample CPU, memory, disk, network and GPU of the driver's machine every ten seconds.
        flush_seconds: how long `finish` goes on trying.
        artifacts: where a new experiment keeps its artefacts; None: beside an SQLite file, or the server decides.
        inform: receives sentences for a person, from a thread of the outbox; None: a warning in the log.
        on_run_id: receives MLflow's id of the run once it is known, from a thread of the outbox.
    Raises:
        ValueError: a tracking URI that cannot be used.
    """

    def __init__(
        self,
        *,
        uri: str,
        experiment: str,
        run_name: str,
        outbox_path: Path,
        run_key: str | None = None,
        existing_run_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        system_metrics: bool = True,
        flush_seconds: float = 60.0,
        artifacts: str | None = None,
        inform: Callable[[str], None] | None = None,
        on_run_id: Callable[[str], None] | None = None,
    ) -> None:
        uri = absolute_tracking_uri(uri)
        self.uri = uri
        self.run_id = existing_run_id
        self._identity = RunIdentity(
            uri=uri,
            experiment=experiment,
            artifact_location=artifact_location(uri, artifacts),
            run_name=run_name,
            key=uuid.uuid4().hex if run_key is None else key_of(run_key),
            run_id=existing_run_id,
            start_time=_now(),
            tags={**(tags or {}), "braidrec.version": version("braidrec"), **Owner.of_this_process().to_tags()},
        )
        self._outbox_path = outbox_path
        self._system_metrics = system_metrics
        self._flush_seconds = flush_seconds
        self._inform = inform or _logger.warning
        self._on_run_id = on_run_id
        self._outbox: Outbox | None = None
        self._sampler: SystemSampler | None = None
        self._skipped_samples = 0
        # By epoch: after a worker was restarted, an epoch may be reported a second time.
        self._history: dict[int, Mapping[str, float]] = {}
        self._notes: list[str] = []
        self._best_epoch: int | None = None
        self._ended = False
        self._outcome: TrackingOutcome | None = None

    def start(
        self,
        *,
        config: Mapping[str, Any],
        config_yaml: str,
        dataset: DatasetLineage,
        previous: History = (),
    ) -> None:
        """Begin the run: parameters, config.yaml, lineage and revision; earlier runs of dead processes are closed.

        Args:
            config: the resolved configuration as plain nested mappings; logged as parameters under dotted keys.
            config_yaml: the same as it is stored with the run.
            dataset: what is trained on.
            previous: (epoch, metrics) of the epochs before a resume, for the plots; what MLflow has of them is not
                sent again.
        """
        self._history = dict(previous)
        self._outbox = Outbox(
            Sender(self._identity, self._inform), where=self.uri, inform=self._inform, on_open=self._opened
        )
        revision = library_revision()
        dirty = {} if revision.dirty is None else {"braidrec.git.dirty": str(revision.dirty).lower()}
        self._put(Tags(values={"mlflow.source.git.commit": revision.commit, **dirty}))
        self._put(Tags(values={"braidrec.dataset.digest": dataset.digest}))
        self._put(Parameters(values=parameters(config)))
        self._put(Text(path="config.yaml", content=redact(config_yaml)))
        features = {name: dict(provenance) for name, provenance in dataset.features.items()}
        self._put(Dataset(name=dataset.name, path=redact(dataset.path), digest=dataset.digest, features=features))
        earlier = [point for epoch, metrics in previous for point in _points(metrics, epoch)]
        if earlier:
            self._put(EarlierMetrics(points=tuple(earlier)))
        if self._system_metrics:
            self._sampler = SystemSampler(self._emit_sample)

    def handle(self, event: Event) -> None:
        """Log one event of the training; what workers still say of a run that was told to end comes too late."""
        if self._ended:
            return
        match event:
            case Started():
                self._put(Tags(values={f"braidrec.choice.{key}": value for key, value in event.facts.items()}))
            case EpochEnd():
                self._history[event.epoch] = dict(event.metrics)
                if event.best:
                    self._best_epoch = event.epoch
                self._put_metrics(event.metrics, event.epoch)
            case Finished():
                self._best_epoch = event.best_epoch
                counts = {"best_epoch": float(event.best_epoch), "epochs_run": float(event.epochs_run)}
                self._put_metrics({**event.metrics, **counts}, event.best_epoch)
            case Note():
                self._notes.append(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {event.level}: {event.message}")
                content = "\n".join(self._notes) + "\n"
                self._put(Text(path=f"notes/{self._identity.start_time}.txt", content=content))
            case Progress():
                pass

    def log_tags(self, values: Mapping[str, str]) -> None:
        """Set tags of the run."""
        self._put(Tags(values=dict(values)))

    def log_artifact(self, path: str, folder: str = "", *, max_bytes: int = MAX_ARTIFACT_BYTES) -> None:
        """Copy a file or folder below `folder` of the run's artefacts.

        What is remote or larger than `max_bytes` is not copied: the tag `braidrec.artifact.<name>` says where it is.
        A local one must stay in place until `finish` has returned.
        """
        local = Path(path.removeprefix("file://"))
        is_remote = "://" in path and not path.startswith("file://")
        if not is_remote and not local.exists():
            raise FileNotFoundError(f"{path}: cannot be logged as an artefact, it does not exist")
        if is_remote or _size(local) > max_bytes:
            where = redact(path) if is_remote else str(local.resolve())
            self._put(Tags(values={f"braidrec.artifact.{Path(path).name}": where}))
        else:
            self._put(LocalFile(path=str(local.resolve()), folder=folder))

    def log_plots(self, folder: Path) -> Path:
        """Write the loss and validation curves to `folder`/curves.html and log the page under "plots"."""
        page = folder / "curves.html"
        write_curves(sorted(self._history.items()), page, title=self._identity.run_name, best_epoch=self._best_epoch)
        self.log_artifact(str(page), "plots")
        return page

    def log_model(self, folder: Path, *, name: str = "recommender", registered_name: str | None = None) -> None:
        """Log a model saved by `save_recommender`, and register it if a name is given."""
        self._put(Model(folder=str(folder.resolve()), name=name, registered_name=registered_name))

    def finish(self, status: Status, reason: str | None = None, flush_seconds: float | None = None) -> TrackingOutcome:
        """End the run, wait for the messages to arrive, keep those that did not.

        A second call changes nothing; one that interrupts the first (a signal handler) only shortens its waiting.

        Args:
            status: how the training ended.
            reason: why, for FAILED and KILLED.
            flush_seconds: instead of the run's own; a process that is being killed has little time.
        """
        if self._outbox is None:
            return TrackingOutcome(run_id=self.run_id, unsent=0, outbox=None)
        if self._outcome is None:
            if not self._ended:
                self._end(status, reason or status)
            self._outcome = self._close(self._outbox, self._flush_seconds if flush_seconds is None else flush_seconds)
        return self._outcome

    def _end(self, status: Status, reason: str) -> None:
        self._ended = True
        if self._sampler is not None:
            self._sampler.stop()
        if self._skipped_samples:
            self._inform(f"{self._skipped_samples} samples of system metrics were left out while MLflow was away")
        self._put(Tags(values={"braidrec.end_reason": reason}))
        self._put(End(status=status, end_time=_now()))

    def _close(self, outbox: Outbox, seconds: float) -> TrackingOutcome:
        unsent = outbox.close(seconds)
        if not unsent:
            return TrackingOutcome(run_id=self.run_id, unsent=0, outbox=None)
        path = free_path(self._outbox_path)
        write_outbox(path, self._identity.model_copy(update={"run_id": self.run_id}), unsent)
        command = shlex.join([sys.executable, "-m", "braidrec.tracking.replay", str(path)])
        self._inform(f"{len(unsent)} messages did not reach MLflow at {redact(self.uri)}; send them later: {command}")
        return TrackingOutcome(run_id=self.run_id, unsent=len(unsent), outbox=path)

    def _opened(self, run_id: str) -> None:
        self.run_id = run_id
        if self._on_run_id is not None:
            self._on_run_id(run_id)

    def _put_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._put(Metrics(points=_points(metrics, step)))

    def _put(self, message: Message) -> None:
        if self._outbox is None:
            raise RuntimeError("MlflowRun.start was not called")
        self._outbox.put(message)

    def _emit_sample(self, sample: Metrics) -> None:
        assert self._outbox is not None
        # Days without a server must not fill the driver's memory with samples of its own load.
        if len(self._outbox) > _MAX_WAITING:
            self._skipped_samples += 1
        else:
            self._outbox.put(sample)


def key_of(run_key: str) -> str:
    """What a run is found by, from what stays the same when it is resumed."""
    return sha256(run_key.encode()).hexdigest()[:32]


def _points(metrics: Mapping[str, float], step: int) -> tuple[MetricPoint, ...]:
    now = _now()
    return tuple(
        MetricPoint(key=metric_name(name), value=float(value), timestamp=now, step=step)
        for name, value in metrics.items()
    )


def _now() -> int:
    return int(time.time() * 1000)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
