"""A finished run, read back: its configuration, its data, the final vectors of its best epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import nn

from braidrec.config.load import ConfigError
from braidrec.config.run import RatingMSEConfig, RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.evaluation.ranker import Ranker
from braidrec.evaluation.scoring import ranker_of
from braidrec.graph.kernels import choose_kernel
from braidrec.graph.neighbourhood import FullGraph
from braidrec.graph.relation import Relation
from braidrec.models.contract import Recommender
from braidrec.objectives.contract import RowLoss
from braidrec.places import absolute_place
from braidrec.runs.hidden import hidden_items
from braidrec.training.checkpoint import CheckpointStore, with_prefix
from braidrec.training.context import SingleProcess
from braidrec.training.inference import inference_of
from braidrec.training.model_factory import build_model
from braidrec.training.objective_factory import build_objective
from braidrec.training.run_folder import RunFolder
from braidrec.training.saved_state import TABLE, load_model, without_optimizer
from braidrec.training.untrained import is_untrained, ranker_from, ranker_tensors
from braidrec.training.world import World, open_world, surrounding_of


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A run with a result.

    Attributes:
        folder: the run's folder.
        config: as it was trained, with `data.path` replaced if the data has moved.
        data: the data set.
        interactions: its train graph.
        present: by modality that it uses, `[num_items]` the items that have it and were not made to lose it.
        ranker: scores of the best epoch, exact over the whole graph.
        best_epoch: which one that is.
        ranks_by_cosine: whether scores are cosines.
    """

    folder: RunFolder
    config: RunConfig
    data: DatasetFolder
    interactions: Relation
    present: Mapping[str, NDArray[np.bool_]]
    ranker: Ranker
    best_epoch: int
    ranks_by_cosine: bool

    @property
    def predicts_ratings(self) -> bool:
        return isinstance(self.config.objective.loss, RatingMSEConfig)


def open_run(
    run: str,
    storage: str = "runs",
    data_path: str | None = None,
    *,
    drop_modality: Mapping[str, float] | None = None,
    drop_seed: int = 0,
) -> FinishedRun:
    """Load a finished run.

    Args:
        run: its name within `storage`, or the path or URI of its folder.
        storage: where runs are.
        data_path: where the data set is now, if it has moved.
        drop_modality: by modality, the share of its items that are treated as if they did not have it.
        drop_seed: decides which.
    Raises:
        ConfigError: no such run, one without a result, other data than it was trained on, or a modality that it does
            not use.
        CheckpointError: the checkpoint of its best epoch is damaged.
    """
    opened = _opened(run, storage, data_path)
    config, data = opened.config, opened.data
    hidden = hidden_items(config, data, drop_modality, drop_seed) if drop_modality else None
    world = open_world(config, data, SingleProcess(), hidden)
    objective = build_objective(config, data, world.interactions)
    return FinishedRun(
        folder=opened.folder,
        config=config,
        data=data,
        interactions=world.interactions,
        present=world.present,
        ranker=_ranker(opened, world, objective, anew=hidden is not None),
        best_epoch=opened.best_epoch,
        ranks_by_cosine=objective.ranks_by_cosine,
    )


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """The module of a run's best epoch, ready for evaluation.

    Attributes:
        tables: its embedding tables, all rows.
        world: what it looks at.
    """

    folder: RunFolder
    config: RunConfig
    model: Recommender
    tables: Mapping[str, torch.Tensor]
    world: World


def open_trained(run: str, storage: str = "runs", data_path: str | None = None) -> TrainedModel:
    """The model itself, where scores are not what is wanted. Arguments and errors as for `open_run`.

    Raises:
        ConfigError: also for a run of a recommender that is not trained.
    """
    opened = _opened(run, storage, data_path)
    config = opened.config
    if is_untrained(config):
        raise ConfigError(
            f"run {opened.folder.name!r} is of model.encoder.kind={config.model.encoder.kind}, which has no model"
        )
    world = open_world(config, opened.data, SingleProcess())
    model, tables = _model(opened, world)
    return TrainedModel(folder=opened.folder, config=config, model=model, tables=tables, world=world)


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A run with a result, and the data that it was trained on."""

    folder: RunFolder
    config: RunConfig
    data: DatasetFolder
    best_epoch: int

    @property
    def name(self) -> str:
        return f"run {self.folder.name!r} in {self.folder.uri}"

    def tensors(self) -> dict[str, torch.Tensor]:
        """What was saved of the best epoch, but for what only training needs."""
        store = CheckpointStore(self.folder.checkpoints, warn=lambda message: None)
        return store.load(self.best_epoch, wanted=without_optimizer)[0]


def _opened(run: str, storage: str, data_path: str | None) -> _Opened:
    folder = _find(run, storage)
    result: dict[str, Any] | None = folder.read_json("result.json")
    if result is None:
        raise ConfigError(
            f"run {folder.name!r} in {folder.uri} has no result yet: finish it with --resume {folder.name}"
        )
    config = folder.config()
    data = DatasetFolder.open(data_path or config.data.path)
    folder.check_same_data(data.digest)
    return _Opened(folder=folder, config=config, data=data, best_epoch=result["best_epoch"])


def _find(run: str, storage: str) -> RunFolder:
    as_path = RunFolder(Location.of(run))
    if as_path.location.child("config.yaml").is_file():
        return as_path
    return RunFolder.existing(absolute_place(storage), run)


def _ranker(opened: _Opened, world: World, objective: RowLoss, *, anew: bool) -> Ranker:
    """
    Args:
        anew: the features are not those of the run, so neighbours by content are others too.
    """
    config = opened.config
    if is_untrained(config):
        made = ranker_tensors(config, world, torch.device("cpu")) if anew else opened.tensors()
        return ranker_from(config, world.folder, made)
    model, tables = _model(opened, world)
    device = torch.device("cpu")
    graph = FullGraph(world.relations.fixed, device=device, kernel=choose_kernel(device))
    context = SingleProcess()
    inference = inference_of(config, model, world, memory_bytes=psutil.virtual_memory().available, context=context)
    return ranker_of(
        model,
        inference.encode(model, tables, graph, world, context).vectors,
        world.num_users,
        objective.score_offset,
        cosine=objective.ranks_by_cosine,
        rating_bounds=objective.rating_bounds,
    )


def _model(opened: _Opened, world: World) -> tuple[Recommender, dict[str, torch.Tensor]]:
    """The model as it is evaluated, and its tables."""
    model, tensors = build_model(opened.config.model, surrounding_of(world)), opened.tensors()
    assert isinstance(model, nn.Module)
    load_model(model, tensors, opened.name)
    model.eval()
    return model, with_prefix(TABLE, tensors)
