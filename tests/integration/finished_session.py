"""What `training_session.py` leaves behind, for the tests that judge it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray_processes import Surroundings

from braidrec.tracking.store import connect

SESSION_SECONDS = 800
_OF_THE_MACHINE = ("seconds/", "memory/", "train/seconds", "train/interactions_per_second")


@dataclass(frozen=True, kw_only=True)
class Session:
    """A finished `training_session.py`."""

    folder: Path
    steps: dict[str, dict[str, Any]]
    output: str
    exit_status: int
    surroundings: Surroundings

    def step(self, name: str) -> dict[str, Any]:
        """What the session saw of one step."""
        report = self.steps[name]
        assert "unexpected" not in report, report["unexpected"]
        return report

    def epochs(self, name: str) -> list[dict[str, float]]:
        """The metrics of each epoch of a run, without those of time and memory."""
        return [
            {key: value for key, value in epoch.items() if not key.startswith(_OF_THE_MACHINE)}
            for epoch in epochs_of(self.folder / "runs" / name)
        ]

    def result(self, name: str) -> dict[str, Any]:
        """Of a finished run, what must be the same whenever and wherever it is run."""
        result = json.loads((self.folder / "runs" / name / "result.json").read_text())
        return {key: result[key] for key in ("best_epoch", "epochs_run", "metrics", "slices", "example")}

    def mlflow(self, name: str) -> tuple[Any, Any]:
        """A client, and the run of that name."""
        client = connect(f"sqlite:///{self.folder}/runs/mlflow.db")
        experiment = client.get_experiment_by_name("braidrec")
        (run,) = client.search_runs([experiment.experiment_id], f"attributes.run_name = '{name}'")
        return client, run


def epochs_of(run: Path) -> list[dict[str, float]]:
    """All metrics of each epoch so far, of a run that may not have begun yet."""
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line)["metrics"] for line in lines]
