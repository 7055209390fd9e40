"""Runs as MLflow holds them, read back: for comparisons, which look at many runs and write none."""

import contextlib
import difflib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from braidrec.config.base import ConfigError
from braidrec.data.storage import Location
from braidrec.tracking.naming import metric_name, redact
from braidrec.tracking.store import absolute_tracking_uri, connect, sqlite_file

PAGE = 1_000
WINNER_TAG = "braidrec.winner"
"""On the run of a sweep: the number of the trial that won."""
CHOSEN_ON_TEST = "chosen_on_test/"
"""Prefix of its metrics that were chosen on test."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """One run of MLflow.

    Attributes:
        run_id, name: MLflow's id of it, and what it is called.
        status: "FINISHED", "FAILED", "KILLED", "RUNNING".
        params: the resolved configuration, dotted keys, values as text.
        metrics: the last value of each, by MLflow's names ("valid/recall_at_20").
        tags: all of them.
        started: milliseconds since 1970.
    """

    run_id: str
    name: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    started: int

    @property
    def kind(self) -> str:
        """ "trial", "final" or "sweep" of a search; "" for a training of its own."""
        return self.tags.get("braidrec.kind", "")

    @property
    def sweep(self) -> str | None:
        """The MLflow id of the sweep that it belongs to, or that it is."""
        return self.run_id if self.kind == "sweep" else self.tags.get("mlflow.parentRunId")

    @property
    def dataset(self) -> str:
        """The digest of the data set that it was trained on."""
        return self.tags.get("braidrec.dataset.digest", "")


class RunReader:
    """Reads runs.

    Args:
        uri: tracking URI.
    Raises:
        ConfigError: a URI that cannot be used, or an SQLite file that is not there.
    """

    def __init__(self, uri: str) -> None:
        file = sqlite_file(uri)
        if file is not None and not file.expanduser().is_file():
            raise ConfigError(
                f"tracking_uri: there is no {file.expanduser()}: set storage to the folder that holds the runs, or "
                "tracking_uri to where they are tracked"
            )
        try:
            self.uri = absolute_tracking_uri(uri)
        except ValueError as error:
            raise ConfigError(f"tracking_uri: {error}") from None
        self._client = connect(self.uri)

    def experiment(self, name: str) -> list[TrackedRun]:
        """All runs of an experiment, oldest first.

        Raises:
            ConfigError: there is none of that name; the message lists those that are there.
        """
        found = self._client.get_experiment_by_name(name)
        if found is None:
            names = sorted(each.name for each in self._client.search_experiments())
            near = difflib.get_close_matches(name, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"experiment: {redact(self.uri)} has no experiment {name!r}, it has {names}.{hint}")
        return self._search(found.experiment_id, "")

    def children(self, parent: TrackedRun) -> list[TrackedRun]:
        """The runs of a sweep, oldest first."""
        experiment = self._client.get_run(parent.run_id).info.experiment_id
        return self._search(experiment, f"tags.`mlflow.parentRunId` = '{parent.run_id}'")

    def runs(self, ids: Sequence[str]) -> list[TrackedRun]:
        """Runs by MLflow's ids.

        Raises:
            ConfigError: no run has such an id.
        """
        found = []
        for run_id in ids:
            try:
                found.append(_tracked(self._client.get_run(run_id)))
            except Exception as error:  # what a store raises here depends on its kind
                raise ConfigError(
                    f"runs: {redact(self.uri)} has no run with the id {run_id!r} ({type(error).__name__}); ids stand "
                    "in mlflow.json of a run's folder and on MLflow's page"
                ) from None
        return found

    def has_run(self, run_id: str) -> bool:
        """Whether a run has this id."""
        try:
            self.runs([run_id])
        except ConfigError:
            return False
        return True

    def history(self, run: TrackedRun, metric: str) -> dict[int, float]:
        """epoch → value of one of our metrics ("valid/recall@20"); of an epoch that was run twice, the last."""
        points = self._client.get_metric_history(run.run_id, metric_name(metric))
        ordered = sorted(points, key=lambda point: (point.step, point.timestamp))
        return {int(point.step): float(point.value) for point in ordered}

    def per_user_metrics(self, run: TrackedRun) -> list[str]:
        """Of which metrics it has values of single users on test; [] where it was not tested."""
        parts = self._per_user_parts(run)
        return _metrics_among(pq.read_schema(pa.BufferReader(parts[0]())).names) if parts else []

    def per_user(self, run: TrackedRun, columns: Sequence[str]) -> pa.Table | None:
        """The values of the test split's users, ascending by user; None where the run was not tested.

        Raises:
            ConfigError: a column that they do not have.
        """
        parts = self._per_user_parts(run)
        if not parts:
            return None
        table = pa.concat_tables([pq.read_table(pa.BufferReader(part())) for part in parts])
        missing = [column for column in columns if column not in table.column_names]
        if missing:
            known = _metrics_among(table.column_names)
            raise ConfigError(f"metric: run {run.name!r} has no {missing[0]!r} of single users; it has {known}")
        return table.select(["user", *columns]).sort_by("user")

    def text(self, run: TrackedRun, path: str) -> str | None:
        """A small artefact, or None where the run has none of that path."""
        folder, _, name = path.rpartition("/")
        for file in self._listed(run, folder):
            if file.rpartition("/")[2] == name:
                return self._download(run, file).decode()
        return None

    def json(self, run: TrackedRun, path: str) -> Any:
        """The same, parsed; None where there is none."""
        content = self.text(run, path)
        return None if content is None else json.loads(content)

    def _per_user_parts(self, run: TrackedRun) -> list[Callable[[], bytes]]:
        """What fetches each part; all have the same columns."""
        logged = [file for file in self._listed(run, "per_user/test") if file.endswith(".parquet")]
        if logged:
            return [partial(self._download, run, file) for file in logged]
        # What was too large to be copied, or lies on remote storage, is where its tag says.
        place = run.tags.get("braidrec.artifact.per_user")
        if place is None:
            return []
        folder = Location.of(place).child("test")
        return [folder.child(file).read_bytes for file in folder.files() if file.endswith(".parquet")]

    def _listed(self, run: TrackedRun, folder: str) -> list[str]:
        with contextlib.suppress(NotADirectoryError):
            return [item.path for item in self._client.list_artifacts(run.run_id, folder or None) if not item.is_dir]
        return []

    def _download(self, run: TrackedRun, path: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            return Path(self._client.download_artifacts(run.run_id, path, folder)).read_bytes()

    def _search(self, experiment_id: str, wanted: str) -> list[TrackedRun]:
        found: list[Any] = []
        token = None
        while True:
            page = self._client.search_runs(
                [experiment_id], wanted, max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token
            )
            found += page
            token = page.token
            if not token:
                return [_tracked(run) for run in found]


def best_of(history: Mapping[int, float], higher_is_better: bool) -> tuple[int, float] | None:
    """(epoch, value) of the best value; the first of equal ones, as training keeps it. None where there is none."""
    finite = {epoch: value for epoch, value in history.items() if np.isfinite(value)}
    if not finite:
        return None
    sign = -1 if higher_is_better else 1
    return min(finite.items(), key=lambda entry: (sign * entry[1], entry[0]))


def _metrics_among(columns: Sequence[str]) -> list[str]:
    return [name for name in columns if name not in ("user", "num_held_out")]


def _tracked(run: Any) -> TrackedRun:
    return TrackedRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        params=dict(run.data.params),
        metrics=dict(run.data.metrics),
        tags=dict(run.data.tags),
        started=int(run.info.start_time),
    )
