"""What several modules look at: one session of trainings on one Ray."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from finished_session import SESSION_SECONDS, Session
from ray_processes import surroundings


@pytest.fixture(scope="session")
def training_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Ends by itself with SIGINT, which its last step sends."""
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
            start_new_session=True,  # what it sends to its group must not reach the tests
        )
        report = folder / "report.json"
        assert report.is_file(), done.stdout
        steps = json.loads(report.read_text())
        yield Session(folder=folder, steps=steps, output=done.stdout, exit_status=done.returncode, surroundings=around)
