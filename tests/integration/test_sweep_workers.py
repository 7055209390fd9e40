"""A sweep whose trials train on two Ray Train workers each: one finishes, one is stopped early, one diverges."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray_processes import PATIENCE, surroundings

from braidrec.tracking.store import connect

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 100)]


def test_trials_of_two_workers_end_like_those_of_one(tmp_path: Path) -> None:
    sweep = {
        "name": "nested",
        "run": {
            "storage": str(tmp_path / "runs"),
            "data": {
                "path": str(tmp_path / "data"),
                "planted": {"users": 200, "items": 120, "interactions": 3000},
            },
            "model": {"encoder": {"kind": "lightgcn", "layers": 1}},
            "training": {"epochs": 6, "batch_size": 512, "optimizer": {"learning_rate": 0.01}},
            "evaluation": {"patience": None},
            "workers": {"num": 2},
            "tracking": {"system_metrics": False},
        },
        "space": {
            "model.dim": {"choice": [32, 1]},
            "training.optimizer.learning_rate": {"choice": [0.01, 1e30], "when": {"model.dim": 1}},
        },
        "algorithm": {"kind": "grid"},
        "scheduler": {"kind": "asha", "grace": 2, "reduction": 2},
        "finalists": {"candidates": 0},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    with surroundings(tmp_path) as around:
        done = subprocess.run(
            [sys.executable, "jobs/sweep.py", "--config", str(tmp_path / "sweep.yaml")],
            env={**around.environment, **PATIENCE},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
            start_new_session=True,
        )
    assert done.returncode == 0, done.stdout
    records = json.loads((tmp_path / "runs" / "nested" / "trials.json").read_text())
    assert [record["state"] for record in records] == ["finished", "stopped_early", "failed"]
    assert [record["epochs"] for record in records] == [6, 2, 0]
    client = connect(f"sqlite:///{tmp_path}/runs/mlflow.db")
    for record in records:
        run = client.get_run(record["mlflow_run_id"])
        assert run.info.status == ("FAILED" if record["state"] == "failed" else "FINISHED")
        assert run.data.params["workers.num"] == "2"
