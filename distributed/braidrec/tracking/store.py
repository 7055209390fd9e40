"""Where runs are kept: tracking URIs made absolute and checked, and MLflow's client made quiet and impatient."""

import logging
import os
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from braidrec.tracking.naming import redact

_SERVERS = {"http", "https", "databricks", "databricks-uc", "uc"}
_DATABASES = {"sqlite", "postgresql", "mysql", "mssql"}

# MLflow's own retrying (seven times, minutes) would hide an outage from the outbox, which does it better: it knows what
# is waiting and when the training ends. What the user has set stands.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def default_tracking_uri(storage: str) -> str:
    """`sqlite:////absolute/storage/mlflow.db` for a local storage folder, which is created.

    Absolute, because a submitted job runs in a temporary copy of the project that is deleted afterwards.

    Raises:
        ValueError: the storage is remote, where SQLite cannot live.
    """
    scheme, separator, rest = storage.partition("://")
    if separator and scheme != "file":
        raise ValueError(
            f"storage={redact(storage)!r} is remote and SQLite needs a local file: set tracking.uri to a tracking "
            "server (mlflow server --backend-store-uri …) or a database, or tracking.enabled=false"
        )
    folder = Path(rest if separator else storage).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}"


def absolute_tracking_uri(uri: str) -> str:
    """The URI as it is used: checked, and a relative SQLite path made absolute with its folder created.

    Raises:
        ValueError: a scheme that no tracking store answers to, or a plain folder (MLflow dropped file stores in 3.13).
    """
    scheme = uri.partition(":")[0].partition("+")[0] if ":" in uri else ""
    if uri in _SERVERS:
        return uri
    if scheme in ("", "file"):
        raise ValueError(
            f"tracking.uri={uri!r}: MLflow no longer keeps runs in plain folders; use sqlite:////absolute/path/mlflow.db"
        )
    plugins = {point.name for point in entry_points(group="mlflow.tracking_store")}
    if scheme not in _SERVERS | _DATABASES | plugins:
        known = sorted(_SERVERS | _DATABASES | plugins)
        raise ValueError(f"tracking.uri={redact(uri)!r}: no tracking store for {scheme!r}; MLflow knows {known}")
    file = sqlite_file(uri)
    if file is None:
        return uri
    file = file.expanduser().resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{file}"


def sqlite_file(uri: str) -> Path | None:
    """The database file of an SQLite URI, None for every other URI."""
    prefix, separator, path = uri.partition(":///")
    return Path(path) if separator and prefix.partition("+")[0] == "sqlite" else None


def artifact_location(uri: str, given: str | None) -> str | None:
    """Where a new experiment keeps its artefacts: as given, beside an SQLite file, or None: a server decides.

    Raises:
        ValueError: another database without a location; MLflow would use a folder of the working directory.
    """
    if given is not None:
        return given
    file = sqlite_file(uri)
    if file is not None:
        return (file.parent / "mlflow-artifacts").as_uri()
    if uri.partition(":")[0].partition("+")[0] in _DATABASES:
        raise ValueError(
            f"tracking.uri={redact(uri)!r} is a database without a place for artefacts: give the URI of a tracking "
            "server in front of it (mlflow server --backend-store-uri … --artifacts-destination …)"
        )
    return None


def connect(uri: str) -> Any:
    """An `MlflowClient` for `uri`, with MLflow's chatter, telemetry and patience turned down."""
    quiet_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def quiet_mlflow() -> None:
    """Import MLflow so that it neither prints, nor reports home, nor retries; settings made by the user stand."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401  (its import configures the loggers that are turned down next)

    for name in ("mlflow", "alembic"):
        logger = logging.getLogger(name)
        logger.setLevel(max(logger.level, logging.WARNING))
