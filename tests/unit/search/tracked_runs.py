"""Runs in an MLflow store as trainings and sweeps leave them, with values that the test decides."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.entities import Metric, Param, RunTag

from braidrec.tracking.reader import WINNER_TAG
from braidrec.tracking.store import connect

DIGEST = "0123456789abcdef" * 4


class Store:
    """An MLflow store of its own.

    Args:
        database: SQLite file.
    """

    def __init__(self, database: Path) -> None:
        self.uri = f"sqlite:///{database}"
        self.folder = database.parent
        self.client = connect(self.uri)

    def experiment(self, name: str) -> str:
        known = self.client.get_experiment_by_name(name)
        place = (self.folder / "artifacts").as_uri()
        return known.experiment_id if known else self.client.create_experiment(name, artifact_location=place)

    def add(
        self,
        name: str,
        *,
        experiment: str = "tests",
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        curve: Sequence[float] = (0.1, 0.2),
        users: Sequence[float] | None = None,
        ids: Sequence[int] | None = None,
        column: str = "recall@20",
        files: Mapping[str, str] | None = None,
        status: str = "FINISHED",
        dataset: str = DIGEST,
    ) -> str:
        """One run: `curve` is its validation recall@20 by epoch, `users` the test values of its users."""
        all_params = {"data.path": "/data/planted", "evaluation.monitor": "recall@20", "evaluation.mask": "train"}
        all_params |= params or {}
        monitor = all_params["evaluation.monitor"].replace("@", "_at_")
        run = self.client.create_run(self.experiment(experiment), run_name=name).info.run_id
        points = [Metric(f"valid/{monitor}", value, 0, epoch) for epoch, value in enumerate(curve, start=1)]
        points += [Metric("train/seconds", 1.5, 0, epoch) for epoch in range(1, len(curve) + 1)]
        points.append(Metric("memory/peak_mb", 100.0, 0, 1))
        all_tags = {"braidrec.dataset.digest": dataset, "braidrec.choice.parameters": "1,234 trained", **(tags or {})}
        self.client.log_batch(
            run, points, [Param(*each) for each in all_params.items()], [RunTag(*each) for each in all_tags.items()]
        )
        if users is not None:
            self._log_users(run, users, range(len(users)) if ids is None else ids, column)
        for path, content in (files or {}).items():
            self.client.log_text(run, content, path)
        self.client.set_terminated(run, status)
        return run

    def _log_users(self, run: str, values: Sequence[float], ids: Sequence[int], column: str) -> None:
        """In two parts, as two workers write them, the second's users first."""
        half = len(values) // 2
        place = self.folder / f"users-{run}"
        place.mkdir()
        for part, rows in enumerate((slice(half, None), slice(0, half))):
            table = pa.table({"user": np.array(ids[rows], np.int32), column: np.array(values[rows], np.float64)})
            pq.write_table(table, place / f"part-{part:05d}.parquet")
        self.client.log_artifacts(run, str(place), "per_user/test")

    def sweep(
        self,
        name: str,
        *,
        experiment: str = "tests",
        files: Mapping[str, str] | None = None,
        winner: int | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> str:
        """The run of a sweep itself."""
        tags = {"braidrec.kind": "sweep", "braidrec.sweep": name}
        won = {} if winner is None else {WINNER_TAG: str(winner)}
        run = self.add(name, experiment=experiment, tags=tags | won, curve=(), files=files)
        self.client.log_batch(run, [Metric(key, value, 0, 0) for key, value in (metrics or {}).items()])
        return run


def searched(parent: str, number: int, settings: Mapping[str, Any], state: str = "finished") -> dict[str, str]:
    """Tags of a trial."""
    keys = {f"search.{key}": value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}
    return {
        "mlflow.parentRunId": parent, "braidrec.kind": "trial", "braidrec.trial": str(number),
        "braidrec.trial_state": state, **keys,
    }  # fmt: skip


def final(parent: str, number: int, settings: Mapping[str, Any], seed: int) -> dict[str, str]:
    """Tags of a run of a finalist."""
    tags = searched(parent, number, settings)
    return tags | {"braidrec.kind": "final", "braidrec.candidate": str(number), "braidrec.seed": str(seed)}
