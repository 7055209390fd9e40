"""A fresh MLflow store per test. Creating the tables takes seconds, so it is done once and the file copied."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from braidrec.tracking import DatasetLineage, MlflowRun
from braidrec.tracking.store import connect

LINEAGE = DatasetLineage(name="planted", path="/data/planted", digest="0123456789abcdef" * 4)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def uri(empty_database: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_database, tmp_path / 'mlflow.db')}"


@pytest.fixture
def client(uri: str) -> Any:
    return connect(uri)


@pytest.fixture
def said() -> list[str]:
    """What a run told the person."""
    return []


@pytest.fixture
def make_run(uri: str, tmp_path: Path, said: list[str]) -> Callable[..., MlflowRun]:
    def make(**changes: Any) -> MlflowRun:
        arguments: dict[str, Any] = {
            "uri": uri,
            "experiment": "tests",
            "run_name": "first",
            "outbox_path": tmp_path / "outbox.jsonl",
            "system_metrics": False,
            "inform": said.append,
        }
        return MlflowRun(**{**arguments, **changes})

    return make


def start(run: MlflowRun, **changes: Any) -> MlflowRun:
    run.start(**{"config": {"seed": 42}, "config_yaml": "seed: 42\n", "dataset": LINEAGE, **changes})
    return run


@pytest.fixture
def started(make_run: Callable[..., MlflowRun]) -> Callable[..., MlflowRun]:
    """Makes a run and starts it; `start` holds arguments of `MlflowRun.start`."""
    return lambda *, begin=None, **changes: start(make_run(**changes), **(begin or {}))
