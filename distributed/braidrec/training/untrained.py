"""Runs without training: popularity, neighbours of items. Evaluated, tracked and recommended from like any other."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from braidrec.config.run import RunConfig
from braidrec.config.untrained import ItemKNNCBFConfig, ItemKNNConfig, PopularityConfig, UntrainedConfig
from braidrec.data.description import Split
from braidrec.data.folder import DatasetFolder
from braidrec.data.pairs import pairs_of
from braidrec.data.storage import Location
from braidrec.evaluation.neighbour_ranker import ItemNeighbourRanker
from braidrec.evaluation.ranker import PopularityRanker, Ranker
from braidrec.features.table import FeatureTable
from braidrec.graph.co_interaction import co_interaction_neighbours
from braidrec.graph.knn import Neighbours, content_neighbours
from braidrec.training.checkpoint import CheckpointStore, RunState
from braidrec.training.context import WorkerContext
from braidrec.training.events import EpochEnd, Finished, Note, Started
from braidrec.training.loop import example_of
from braidrec.training.result import LoopResult
from braidrec.training.run_folder import config_hash
from braidrec.training.validation import SplitEvaluation, SplitResult
from braidrec.training.world import World, open_world

ONLY_EPOCH = 1
"""Under which number the result and what the ranker is made of are stored."""
INDICES, SIMILARITY, DEGREE = "neighbours:indices", "neighbours:similarity", "popularity:degree"


def is_untrained(config: RunConfig) -> bool:
    """Whether the run has nothing to train."""
    return isinstance(config.model.encoder, UntrainedConfig)


def run_untrained(config: RunConfig, folder: DatasetFolder, context: WorkerContext, run_folder: Location) -> LoopResult:
    """Find what the ranker needs, keep it as the run's checkpoint, evaluate."""
    world = open_world(config, folder, context)
    facts = {"model": f"{config.model.encoder.kind}: nothing is trained"}
    context.emit(Started(first_epoch=1, epochs=1, steps_per_epoch=0, interactions_per_epoch=0, facts=facts))
    tensors = ranker_tensors(config, world, context.device)
    store = CheckpointStore(
        run_folder.child("checkpoints"), warn=lambda message: context.emit(Note(message=message, level="warning"))
    )
    state = RunState(
        epoch=ONLY_EPOCH, global_step=0, best_epoch=ONLY_EPOCH, best_value=None, stale_validations=0,
        config_hash=config_hash(config),
    )  # fmt: skip
    store.save(tensors, state)
    ranker = ranker_from(config, folder, tensors)
    results = _evaluated(config, world, ranker, context)
    if "test" in results:
        run_folder.child("per_user").remove()  # by an earlier start
        results["test"].write_per_user(run_folder.child("per_user/test/part-00000.parquet"))
    metrics = {f"{split}/{name}": value for split, done in results.items() for name, value in done.metrics.items()}
    context.emit(EpochEnd(epoch=ONLY_EPOCH, metrics=metrics, best=True, last=True))
    context.emit(Finished(best_epoch=ONLY_EPOCH, epochs_run=ONLY_EPOCH, metrics=metrics))
    user, items = example_of(ranker, folder, world.interactions)
    return LoopResult(
        best_epoch=ONLY_EPOCH,
        epochs_run=ONLY_EPOCH,
        metrics=metrics,
        example_user=user,
        example_items=items,
        slices=results["test"].result.slices if "test" in results else {},
    )


def ranker_tensors(config: RunConfig, world: World, device: torch.device) -> dict[str, Tensor]:
    """What the ranker is made of: the items' neighbours and similarities, or their numbers of users."""
    encoder, num_users = config.model.encoder, world.num_users
    if isinstance(encoder, PopularityConfig):
        return {DEGREE: world.interactions.in_degree[num_users:].long()}
    most = world.folder.num_items - 1
    if isinstance(encoder, ItemKNNConfig):
        k = min(encoder.neighbours, most)
        found = co_interaction_neighbours(world.interactions, num_users, k, shrinkage=encoder.shrinkage)
    else:
        assert isinstance(encoder, ItemKNNCBFConfig)
        features, present = side_by_side(world.features.tables)
        k = min(encoder.neighbours, most)
        found = content_neighbours(features, present, k, device=device, method=encoder.method)
    return {
        INDICES: torch.from_numpy(found.indices.astype(np.int64)),
        SIMILARITY: torch.from_numpy(np.ascontiguousarray(found.similarity)),
    }


def ranker_from(config: RunConfig, folder: DatasetFolder, tensors: Mapping[str, Tensor]) -> Ranker:
    """The ranker of `ranker_tensors`."""
    if isinstance(config.model.encoder, PopularityConfig):
        return PopularityRanker(tensors[DEGREE].numpy(), folder.num_users)
    neighbours = Neighbours(tensors[INDICES].numpy(), tensors[SIMILARITY].numpy())
    return ItemNeighbourRanker(pairs_of(folder, ["train"]), neighbours)


def side_by_side(tables: Mapping[str, FeatureTable]) -> tuple[Tensor, Tensor]:
    """All modalities' vectors at length one, `[num_items, Σ F]`, and `[num_items]` who has one.

    Of items with all modalities the cosine is the mean of the modalities' cosines; absent and zero vectors are zeros.
    """
    parts, any_present = [], None
    for name in sorted(tables):
        values, present = tables[name].rows()
        unit = torch.nn.functional.normalize(values.masked_fill(~present.unsqueeze(-1), 0.0), dim=1)
        has = present & (unit != 0).any(1)
        parts.append(unit)
        any_present = has if any_present is None else any_present | has
    assert any_present is not None, "checked before the run started"
    return torch.cat(parts, dim=1), any_present


def _evaluated(config: RunConfig, world: World, ranker: Ranker, context: WorkerContext) -> dict[str, SplitResult]:
    wanted: dict[Split, str] = {"valid": "train"}
    if config.evaluation.test:
        wanted["test"] = config.evaluation.mask
    results: dict[str, SplitResult] = {}
    for split, mask in wanted.items():
        if not world.folder.num_rows(split):
            continue
        evaluation = SplitEvaluation(
            world.folder,
            world.interactions,
            config.evaluation,
            split,
            mask=mask,
            rating=False,
            detail=split == "test",
            present=world.present,
        )
        results[split] = evaluation.run(ranker, context, lambda done, total: None)
    return results
