"""The run's side of MLflow: what a training logs beside its events, and nothing at all if tracking is off."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from braidrec.config.load import ConfigError, to_yaml
from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.evaluation.ranker import VectorRanker
from braidrec.tracking.messages import Status
from braidrec.tracking.naming import redact
from braidrec.tracking.run import DatasetLineage, MlflowRun
from braidrec.tracking.store import absolute_tracking_uri, artifact_location, default_tracking_uri
from braidrec.training.events import Listener
from braidrec.training.features import modalities_of
from braidrec.training.result import TrainResult
from braidrec.training.run_folder import RunFolder

RUN_FILE = "mlflow.json"


def tracking_uri_of(config: RunConfig, prefix: str = "") -> str | None:
    """The absolute URI at which a run, or a sweep of such runs, is tracked; None if tracking is off.

    Args:
        prefix: of the run's keys in what the user wrote, such as "run.".
    Raises:
        ConfigError: remote storage without a tracking URI, or one that cannot be used.
    """
    tracking = config.tracking
    if not tracking.enabled:
        return None
    try:
        uri = absolute_tracking_uri(tracking.uri or default_tracking_uri(config.storage))
        artifact_location(uri, tracking.artifacts)
    except ValueError as error:
        raise ConfigError(f"{prefix}{error}") from None
    return uri


def lineage_of(dataset: DatasetFolder, config: RunConfig) -> DatasetLineage:
    """The data set, and where the vectors come from that the model looks at (users' modalities as `user/<name>`)."""
    described, model = dataset.description, config.model
    features = {name: described.modalities[name].provenance for name in modalities_of(model.modalities, dataset)}
    for name in modalities_of(model.user_modalities, dataset):
        features[f"user/{name}"] = described.user_modalities[name].provenance
    return DatasetLineage(name=dataset.location.name, path=dataset.path, digest=dataset.digest, features=features)


class Tracked:
    """The MLflow run of a training, owned by the driver.

    Args:
        config: the run, with absolute places.
        run_folder: remembers MLflow's run id, so that a resumed run continues it.
        inform: receives sentences for a person.
        tags: beside those of the configuration.
    Raises:
        ConfigError: remote storage without a tracking URI.
    """

    def __init__(
        self,
        config: RunConfig,
        run_folder: RunFolder,
        inform: Callable[[str], None],
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._config, self._folder = config, run_folder
        self._run: MlflowRun | None = None
        uri = tracking_uri_of(config)
        if uri is None:
            return
        known = run_folder.read_json(RUN_FILE) or {}
        self._run = MlflowRun(
            uri=uri,
            experiment=config.tracking.experiment,
            run_name=run_folder.name,
            outbox_path=files_on_their_way(run_folder.location) / "mlflow_outbox.jsonl",
            run_key=run_folder.key,
            existing_run_id=known.get("run_id") if known.get("uri") == redact(uri) else None,
            tags={**config.tracking.tags, **tags},
            system_metrics=config.tracking.system_metrics,
            flush_seconds=config.tracking.flush_seconds,
            artifacts=config.tracking.artifacts,
            inform=inform,
            on_run_id=self._remember,
        )

    @property
    def listeners(self) -> tuple[Listener, ...]:
        return () if self._run is None else (self._run,)

    @property
    def uri(self) -> str | None:
        """The absolute tracking URI; None if tracking is off."""
        return None if self._run is None else self._run.uri

    @property
    def run_id(self) -> str | None:
        return None if self._run is None else self._run.run_id

    def start(self, dataset: DatasetFolder, previous: list[tuple[int, Mapping[str, float]]]) -> None:
        """Begin the run; `previous` are the epochs before a resume."""
        if self._run is None:
            return
        self._run.start(
            config=self._config.to_plain(),
            config_yaml=to_yaml(self._config),
            dataset=lineage_of(dataset, self._config),
            previous=previous,
        )

    def log_results(self, result: TrainResult) -> None:
        """Curves, per-user results, what prototypes stand for, the result itself and the best checkpoint."""
        if self._run is None:
            return
        self._run.log_plots(files_on_their_way(self._folder.location))
        files = ("result.json", "metrics.jsonl", "prototypes.html", "prototypes.json")
        for name, folder in (*((file, "") for file in files), ("per_user", "per_user")):
            location = self._folder.location.child(name)
            if location.is_file() or location.is_folder():
                self._run.log_artifact(location.uri, folder)
        self._run.log_artifact(result.checkpoint, "checkpoint")
        self._run.log_tags({"braidrec.run_folder": self._folder.uri})

    def log_model(self, result: TrainResult, data: DatasetFolder) -> None:
        """The best epoch as a model that answers top-k, if the configuration names it."""
        name = self._config.tracking.registered_model
        if self._run is None or name is None:
            return
        from braidrec.runs.finished import open_run
        from braidrec.tracking.model import save_recommender

        ranker = open_run(result.folder).ranker
        assert isinstance(ranker, VectorRanker), "checked before the run started"
        target = files_on_their_way(self._folder.location) / "model"
        shutil.rmtree(target, ignore_errors=True)
        save_recommender(
            target,
            user_vectors=ranker.user_vectors(torch.arange(ranker.num_users)).numpy(),
            item_vectors=ranker.item_vectors().numpy(),
            user_ids=data.user_ids().to_pylist(),
            item_ids=data.item_ids().to_pylist(),
            seen=data.edges("train"),
        )
        self._run.log_model(target, registered_name=name)

    def finish(self, status: Status, reason: str | None = None, flush_seconds: float | None = None) -> None:
        """End the MLflow run. Bounded: a server that is away costs `tracking.flush_seconds` at most."""
        if self._run is not None:
            self._run.finish(status, reason, flush_seconds)

    def _remember(self, run_id: str) -> None:
        self._folder.write_json(RUN_FILE, {"run_id": run_id, "uri": redact(self.uri or "")})


def files_on_their_way(place: Location) -> Path:
    """A place on this machine for files on their way to MLflow: of a run or a sweep that is kept at `place`."""
    if place.is_local:
        return Path(place.path)
    folder = Path.home() / ".cache" / "braidrec" / "outbox" / place.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
