"""Tracking URIs: absolute, checked, and no import of MLflow before it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from braidrec.tracking import absolute_tracking_uri, default_tracking_uri
from braidrec.tracking.store import artifact_location, sqlite_file


def test_default_is_absolute_and_its_folder_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_tracking_uri("runs") == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert (tmp_path / "runs").is_dir()
    assert default_tracking_uri(f"file://{tmp_path}/b") == f"sqlite:///{tmp_path}/b/mlflow.db"


def test_remote_storage_needs_a_uri() -> None:
    with pytest.raises(ValueError, match=r"storage='s3://bucket/runs' is remote .* tracking\.uri"):
        default_tracking_uri("s3://bucket/runs")


def test_relative_sqlite_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_tracking_uri("sqlite:///a/b.db") == f"sqlite:///{tmp_path}/a/b.db"
    assert (tmp_path / "a").is_dir()
    assert absolute_tracking_uri(f"sqlite:///{tmp_path}/c.db") == f"sqlite:///{tmp_path}/c.db"


@pytest.mark.parametrize("uri", ["http://h:5000", "https://h", "databricks", "postgresql+psycopg2://u:p@h/db"])
def test_servers_and_databases_stay(uri: str) -> None:
    assert absolute_tracking_uri(uri) == uri


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mlruns", "no longer keeps runs in plain folders"),
        ("file:///x/mlruns", "no longer keeps runs in plain folders"),
        ("htp://u:secret@h", r"htp://u:\*\*\*@h.*no tracking store for 'htp'.*http"),
    ],
)
def test_unusable_uris_name_the_mend(uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        absolute_tracking_uri(uri)


def test_artefacts_lie_beside_an_sqlite_file() -> None:
    assert artifact_location("sqlite:////a/b/mlflow.db", None) == "file:///a/b/mlflow-artifacts"
    assert artifact_location("http://h", None) is None
    assert artifact_location("postgresql://h/db", "s3://b") == "s3://b"
    with pytest.raises(ValueError, match="without a place for artefacts"):
        artifact_location("postgresql://u:p@h/db", None)


def test_only_sqlite_has_a_file() -> None:
    assert sqlite_file("sqlite:////a/b.db") == Path("/a/b.db")
    assert sqlite_file("sqlite+pysqlite:////a/b.db") == Path("/a/b.db")
    assert sqlite_file("postgresql:///db") is None


def test_importing_the_package_imports_no_mlflow() -> None:
    code = "import sys, braidrec.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
