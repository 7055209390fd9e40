"""What several modules look at: one session of trainings on one Ray."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray_processes import Surroundings, surroundings

SESSION_SECONDS = 800


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
        """The metrics of each epoch of a run, without those that are about time and memory."""
        lines = (self.folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
        numbers = [json.loads(line)["metrics"] for line in lines]
        return [{key: epoch[key] for key in epoch if not key.startswith(("seconds/", "memory/"))} for epoch in numbers]


@pytest.fixture(scope="session")
def training_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Ends by itself with SIGTERM, which its last step sends."""
    folder = tmp_path_factory.mktemp("session")
    script = Path(__file__).with_name("training_session.py")
    with surroundings(folder) as around:
        done = subprocess.run(
            [sys.executable, str(script), str(folder)],
            env=around.environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SESSION_SECONDS,
            check=False,
        )
        report = folder / "report.json"
        assert report.is_file(), done.stdout
        steps = json.loads(report.read_text())
        yield Session(folder=folder, steps=steps, output=done.stdout, exit_status=done.returncode, surroundings=around)
