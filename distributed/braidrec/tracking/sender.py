"""One message → MLflow. Every operation may be repeated: what arrived twice is stored once."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, assert_never

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
    Tags,
    Text,
)
from braidrec.tracking.naming import first_line, metric_name, tags
from braidrec.tracking.orphans import close_orphans
from braidrec.tracking.owner import HEARTBEAT_TAG
from braidrec.tracking.store import connect, quiet_mlflow, sqlite_file

KEY_TAG = "braidrec.key"
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's page shows the pages for training models, not those for language models."""
_MAX_DIGEST = 36
_METRICS_A_REQUEST = 1000
_PARAMETERS_A_REQUEST = 100
_RETRIED_STATUS = {408, 429}


class RefusedError(Exception):
    """The message can never be sent; waiting does not mend it."""


class Sender:
    """The only place that calls MLflow's client. Used by one thread at a time.

    Args:
        identity: which run, where.
        inform: told what a person should know.
    """

    def __init__(self, identity: RunIdentity, inform: Callable[[str], None]) -> None:
        self._identity = identity
        self._inform = inform
        # Imported here, by the caller's thread; connecting to a database may take seconds or fail, so `open` does it.
        quiet_mlflow()
        self._client: Any = None
        self._run_id = ""
        self._experiment_id = ""
        self._start_time = identity.start_time

    def open(self) -> str:
        """Connect, find the run by its id or else by its key, or create it; returns its id."""
        self._client = connect(self._identity.uri)
        self._experiment_id = self._find_or_create_experiment()
        run = self._known_run() or self._run_with_key() or self._create_run()
        self._run_id = run.info.run_id
        self._start_time = run.info.start_time
        return self._run_id

    def claim(self) -> None:
        """Make the run RUNNING and this process its owner; at the start, on resuming and after an outage."""
        self._client.update_run(self._run_id, status="RUNNING")
        self._set_tags(self._identity.tags)
        self.heartbeat()

    def heartbeat(self) -> None:
        self._client.set_tag(self._run_id, HEARTBEAT_TAG, str(int(time.time() * 1000)))

    def close_orphans(self) -> list[str]:
        return close_orphans(self._identity.uri, self._identity.experiment, client=self._client)

    def server_answers(self) -> bool:
        """Whether the store answers at all, so that a failure is the message's own."""
        try:
            self._client.get_run(self._run_id)
        except Exception:  # any failure is the answer "no"
            return False
        return True

    def send(self, message: Message) -> None:
        """Deliver one message.

        Raises:
            RefusedError: the server or this machine will never accept it.
            Exception: whatever the client raises when the server cannot be reached; worth another try.
        """
        try:
            self._dispatch(message)
        except Exception as error:
            if is_refusal(error, self._identity.uri):
                raise RefusedError(first_line(error)) from error
            raise

    def _dispatch(self, message: Message) -> None:
        match message:
            case Metrics():
                self._send_metrics(message.points)
            case EarlierMetrics():
                self._send_metrics(self._not_stored(message.points))
            case Parameters():
                self._send_parameters(message.values)
            case Tags():
                self._set_tags(message.values)
            case Text():
                self._client.log_text(self._run_id, message.content, message.path)
            case LocalFile():
                self._send_file(Path(message.path), message.folder)
            case Dataset():
                self._send_dataset(message)
            case Model():
                self._send_model(message)
            case End():
                self._client.set_terminated(self._run_id, message.status, message.end_time)
            case _:
                assert_never(message)

    def _find_or_create_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        name = self._identity.experiment
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            place = self._identity.artifact_location
            return str(self._client.create_experiment(name, artifact_location=place, tags=EXPERIMENT_TAGS))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # Another driver was faster, or the answer to our own creation was lost.
            return str(self._client.get_experiment_by_name(name).experiment_id)

    def _known_run(self) -> Any:
        from mlflow.exceptions import MlflowException

        run_id = self._identity.run_id
        if run_id is None:
            return None
        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            run = None
        if run is None or run.info.lifecycle_stage == "deleted":
            self._inform(f"MLflow has no run {run_id} any more: a new run is made for {self._identity.run_name!r}")
            return None
        return run

    def _run_with_key(self) -> Any:
        query = f"tags.`{KEY_TAG}` = '{self._identity.key}'"
        found = self._client.search_runs([self._experiment_id], query, max_results=1)
        return found[0] if found else None

    def _create_run(self) -> Any:
        identity = self._identity
        return self._client.create_run(
            self._experiment_id,
            start_time=identity.start_time,
            tags={**identity.tags, KEY_TAG: identity.key},
            run_name=identity.run_name,
        )

    def _send_metrics(self, points: tuple[MetricPoint, ...]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(point.key, point.value, point.timestamp, self._step(point)) for point in points]
        for chunk in _chunks(metrics, _METRICS_A_REQUEST):
            self._client.log_batch(self._run_id, metrics=chunk)

    def _not_stored(self, points: tuple[MetricPoint, ...]) -> tuple[MetricPoint, ...]:
        stored = {
            key: {metric.step for metric in self._client.get_metric_history(self._run_id, key)}
            for key in {point.key for point in points}
        }
        return tuple(point for point in points if point.step not in stored[point.key])

    def _step(self, point: MetricPoint) -> int:
        return point.step if point.step is not None else (point.timestamp - self._start_time) // 1000

    def _send_parameters(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        stored = self._client.get_run(self._run_id).data.params
        new = [Param(key, value) for key, value in values.items() if key not in stored]
        for chunk in _chunks(new, _PARAMETERS_A_REQUEST):
            self._client.log_batch(self._run_id, params=chunk)
        changed = {key: value for key, value in values.items() if stored.get(key, value) != value}
        self._set_tags({f"braidrec.resumed.{key}": value for key, value in changed.items()})

    def _set_tags(self, values: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entries = [RunTag(key, value) for key, value in tags(values).items()]
        for chunk in _chunks(entries, _PARAMETERS_A_REQUEST):
            self._client.log_batch(self._run_id, tags=chunk)

    def _send_file(self, path: Path, folder: str) -> None:
        if path.is_dir():
            self._client.log_artifacts(self._run_id, str(path), folder or None)
        elif path.is_file():
            self._client.log_artifact(self._run_id, str(path), folder or None)
        else:
            raise RefusedError(f"{path} no longer exists")

    def _send_dataset(self, message: Dataset) -> None:
        from mlflow.entities import Dataset as DatasetEntity
        from mlflow.entities import DatasetInput, InputTag

        scheme, separator, _ = message.path.partition("://")
        entity = DatasetEntity(
            name=message.name,
            digest=message.digest[:_MAX_DIGEST],
            # MLflow names its sources of files after the scheme of their URI.
            source_type=scheme if separator else "local",
            source=json.dumps({"uri": message.path}),
            profile=json.dumps({"features": message.features}, ensure_ascii=False) if message.features else None,
        )
        context = InputTag("mlflow.data.context", "training")
        self._client.log_inputs(self._run_id, datasets=[DatasetInput(entity, [context])])

    def _send_model(self, message: Model) -> None:
        from mlflow.entities import LoggedModelOutput

        folder = Path(message.folder)
        if not (folder / "MLmodel").is_file():
            raise RefusedError(f"{folder} holds no saved model (no MLmodel file)")
        model = self._find_or_create_model(message.name)
        model_id = model.model_id
        self._client.log_model_artifacts(model_id, str(folder))
        self._client.finalize_logged_model(model_id, "READY")
        outputs = self._client.get_run(self._run_id).outputs
        if model_id not in {output.model_id for output in (outputs.model_outputs if outputs else ())}:
            self._client.log_outputs(self._run_id, [LoggedModelOutput(model_id, 0)])
        if message.registered_name is not None:
            self._register(message.registered_name, model)

    def _find_or_create_model(self, name: str) -> Any:
        query = f"source_run_id = '{self._run_id}' AND name = '{metric_name(name)}'"
        found = self._client.search_logged_models([self._experiment_id], query, max_results=1)
        if found:
            return found[0]
        return self._client.create_logged_model(
            self._experiment_id, metric_name(name), source_run_id=self._run_id, model_type="recommender"
        )

    def _register(self, name: str, model: Any) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = self._client.search_model_versions(f"name = '{name}' AND run_id = '{self._run_id}'")
        if not versions:
            # By its place rather than as "models:/<id>", which MLflow's SQL registry would look up at the process-wide
            # tracking URI instead of this one.
            self._client.create_model_version(
                name, model.artifact_location, run_id=self._run_id, model_id=model.model_id
            )


def is_refusal(error: BaseException, uri: str) -> bool:
    """Whether the error is MLflow's own answer about the message, not a server that is away or a proxy before it."""
    from mlflow.exceptions import MlflowException, RestException

    if isinstance(error, RefusedError):
        return True
    answers_itself = RestException if sqlite_file(uri) is None and uri.startswith("http") else MlflowException
    if not isinstance(error, answers_itself):
        return False
    status = int(error.get_http_status_code())
    return status < 500 and status not in _RETRIED_STATUS


def _chunks(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    listed = list(values)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]
