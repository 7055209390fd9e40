"""A finished run, read back: its configuration, its data, the final vectors of its best epoch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from braidrec.config.load import ConfigError
from braidrec.config.run import RatingMSEConfig, RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.evaluation.ranker import Ranker
from braidrec.evaluation.scoring import encode_exactly, ranker_of
from braidrec.graph.kernels import choose_kernel
from braidrec.graph.neighbourhood import FullGraph
from braidrec.graph.relation import Relation
from braidrec.models.contract import Recommender
from braidrec.objectives.contract import RowLoss
from braidrec.places import absolute_place
from braidrec.runs.hidden import hidden_items
from braidrec.training.checkpoint import CheckpointStore, with_prefix
from braidrec.training.context import SingleProcess
from braidrec.training.model_factory import build_model
from braidrec.training.objective_factory import build_objective
from braidrec.training.run_folder import RunFolder
from braidrec.training.untrained import is_untrained, ranker_from, ranker_tensors
from braidrec.training.world import World, open_world, surrounding_of

_UNFINISHED = "run {name!r} in {uri} has no result yet: finish it with --resume {name}"


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
    folder = _find(run, storage)
    result: dict[str, Any] | None = folder.read_json("result.json")
    if result is None:
        raise ConfigError(_UNFINISHED.format(name=folder.name, uri=folder.uri))
    config = folder.config()
    data = DatasetFolder.open(data_path or config.data.path)
    folder.check_same_data(data.digest)
    context = SingleProcess()
    hidden = hidden_items(config, data, drop_modality, drop_seed) if drop_modality else None
    world = open_world(config, data, context, hidden)
    store = CheckpointStore(folder.checkpoints, warn=lambda message: None)
    tensors, _ = store.load(result["best_epoch"], wanted=lambda name: not name.startswith("optimizer:"))
    objective = build_objective(config, data, world.interactions)
    return FinishedRun(
        folder=folder,
        config=config,
        data=data,
        interactions=world.interactions,
        present=world.present,
        ranker=_ranker(config, tensors, world, objective, anew=hidden is not None),
        best_epoch=result["best_epoch"],
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
    folder = _find(run, storage)
    result: dict[str, Any] | None = folder.read_json("result.json")
    if result is None:
        raise ConfigError(_UNFINISHED.format(name=folder.name, uri=folder.uri))
    config = folder.config()
    if is_untrained(config):
        raise ConfigError(
            f"run {folder.name!r} is of model.encoder.kind={config.model.encoder.kind}, which has no model"
        )
    data = DatasetFolder.open(data_path or config.data.path)
    folder.check_same_data(data.digest)
    world = open_world(config, data, SingleProcess())
    tensors, _ = CheckpointStore(folder.checkpoints, warn=lambda message: None).load(result["best_epoch"])
    return TrainedModel(
        folder=folder,
        config=config,
        model=_model(config, tensors, world),
        tables=with_prefix("table", tensors),
        world=world,
    )


def _find(run: str, storage: str) -> RunFolder:
    as_path = RunFolder(Location.of(run))
    if as_path.location.child("config.yaml").is_file():
        return as_path
    return RunFolder.existing(absolute_place(storage), run)


def _ranker(
    config: RunConfig, tensors: dict[str, torch.Tensor], world: World, objective: RowLoss, *, anew: bool
) -> Ranker:
    """
    Args:
        anew: the features are not those of the run, so neighbours by content are others too.
    """
    if is_untrained(config):
        made = ranker_tensors(config, world, torch.device("cpu")) if anew else tensors
        return ranker_from(config, world.folder, made)
    model, vectors = _vectors(config, tensors, world)
    return ranker_of(
        model,
        vectors,
        world.num_users,
        objective.score_offset,
        cosine=objective.ranks_by_cosine,
        rating_bounds=objective.rating_bounds,
    )


def _model(config: RunConfig, tensors: dict[str, torch.Tensor], world: World) -> Recommender:
    model = build_model(config.model, surrounding_of(world))
    assert isinstance(model, nn.Module)
    model.load_state_dict(with_prefix("model", tensors))
    model.eval()
    return model


def _vectors(config: RunConfig, tensors: dict[str, torch.Tensor], world: World) -> tuple[Recommender, torch.Tensor]:
    model = _model(config, tensors, world)
    device = torch.device("cpu")
    graph = FullGraph(world.relations.fixed, device=device, kernel=choose_kernel(device))
    tables = with_prefix("table", tensors)
    return model, encode_exactly(model, tables, graph, world.features.fetch, world.num_users, world.cold).vectors
