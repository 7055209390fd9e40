"""`braidrec.attack`: what is left of a finished run's ranking when the items' features are moved against it."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch

from braidrec.config.load import ConfigError, validate
from braidrec.config.run import EvaluationConfig, RatingMSEConfig
from braidrec.config.runs import AttackConfig
from braidrec.data.negatives import NegativeSampler
from braidrec.data.randomness import generator_for, seed_for
from braidrec.data.storage import Location
from braidrec.evaluation.attack import Triples, moved_features, random_directions, worst_directions
from braidrec.evaluation.scoring import encode_exactly, vector_ranker
from braidrec.graph.kernels import choose_kernel
from braidrec.graph.neighbourhood import FullGraph
from braidrec.models.contract import FetchFeatures, ScoresByMixture
from braidrec.objectives.contract import RowLoss
from braidrec.places import absolute_place
from braidrec.runs.finished import TrainedModel, open_trained
from braidrec.training.context import SingleProcess
from braidrec.training.objective_factory import build_objective
from braidrec.training.validation import SplitEvaluation

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class AttackPoint:
    """One evaluation.

    Attributes:
        epsilon: by how much every item's vector was moved, in each modality.
        direction: "none", "worst" (where the loss rises fastest) or "random".
        metrics: those of the split.
    """

    epsilon: float
    direction: str
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class AttackResult:
    """The curve of a run, and where it is written."""

    run: str
    split: str
    mask: str
    modalities: tuple[str, ...]
    points: tuple[AttackPoint, ...]
    curve_file: str


def attack(run: str, *, progress: Progress = lambda done, total: None, **options: object) -> AttackResult:
    """Evaluate a finished run with its features moved by each of some lengths, on purpose and at random.

    Args:
        run: name of a finished run in `storage`, or its folder.
        progress: called with (evaluations done, evaluations in all).
        options: the keys of `AttackConfig`: storage, epsilons, modalities, split, mask, at, …
    Raises:
        ConfigError, DatasetError, CheckpointError: naming what is wrong and the mend.
    """
    return attack_config(validate(AttackConfig, {"run": run, **options}, "attack()"), progress)


def attack_config(config: AttackConfig, progress: Progress) -> AttackResult:
    """The same from a validated configuration, as jobs/attack.py calls it."""
    trained = open_trained(config.run, config.storage, config.data_path)
    modalities = _modalities(config, trained)
    objective = build_objective(trained.config, trained.world.folder, trained.world.interactions)
    evaluation = _evaluation(config, trained)
    graph = _graph(trained)
    wanted = _attacks(config, trained, graph, modalities, cosine=objective.ranks_by_cosine)
    points = []
    for number, (epsilon, direction, features) in enumerate(wanted):
        progress(number, len(wanted))
        metrics = _evaluated(trained, graph, objective, evaluation, features)
        points.append(AttackPoint(epsilon=epsilon, direction=direction, metrics=metrics))
    progress(len(wanted), len(wanted))
    folder = trained.folder.location.child("evaluations")
    if config.output:
        folder = Location.of(absolute_place(config.output))
    file = folder.child(f"attack-{config.split}-mask-{config.mask.replace('+', '-')}.json")
    result = AttackResult(
        run=trained.folder.uri,
        split=config.split,
        mask=config.mask,
        modalities=modalities,
        points=tuple(points),
        curve_file=file.uri,
    )
    file.write_bytes(json.dumps(asdict(result), indent=1).encode())
    return result


def _attacks(
    config: AttackConfig, trained: TrainedModel, graph: FullGraph, modalities: tuple[str, ...], *, cosine: bool
) -> list[tuple[float, str, FetchFeatures]]:
    """ε, kind of direction and features of each point of the curve."""
    fetch: FetchFeatures = trained.world.features.fetch
    worst = worst_directions(
        trained.model,
        trained.tables,
        graph,
        fetch,
        modalities,
        _triples(trained, config.seed),
        num_users=trained.world.num_users,
        cold=trained.world.cold,
        cosine=cosine,
    )
    kinds = {"worst": worst, "random": random_directions(fetch, modalities, seed=seed_for(config.seed, "attack"))}
    found = [(0.0, "none", fetch)]
    for epsilon in config.epsilons:
        found += [(epsilon, name, moved_features(fetch, towards, epsilon)) for name, towards in kinds.items()]
    return found


def _modalities(config: AttackConfig, trained: TrainedModel) -> tuple[str, ...]:
    """Those that the run looks at and whose vectors are not its own parameters."""
    if isinstance(trained.model, ScoresByMixture):
        raise ConfigError(f"run {trained.folder.name!r}: an attack is on scores that are inner products; its are not")
    own = set(trained.config.model.modalities.trainable)
    there = sorted(set(trained.world.features.tables) - own)
    if not there:
        raise ConfigError(f"run {trained.folder.name!r} looks at no features of items: there is nothing to attack")
    for name in config.modalities or ():
        if name not in there:
            raise ConfigError(f"modalities: the run does not look at features {name!r}; it looks at {there}")
    return tuple(sorted(set(config.modalities))) if config.modalities else tuple(there)


def _evaluation(config: AttackConfig, trained: TrainedModel) -> SplitEvaluation:
    folder = trained.world.folder
    if folder.num_rows(config.split) == 0:
        raise ConfigError(f"split: the data set {folder.path} has no {config.split} interactions")
    return SplitEvaluation(
        folder,
        trained.world.interactions,
        EvaluationConfig(at=config.at, auc=config.auc, slices=False, tile_mb=config.tile_mb),
        config.split,
        mask=config.mask,
        rating=isinstance(trained.config.objective.loss, RatingMSEConfig),
        detail=False,
    )


def _evaluated(
    trained: TrainedModel,
    graph: FullGraph,
    objective: RowLoss,
    evaluation: SplitEvaluation,
    features: FetchFeatures,
) -> dict[str, float]:
    world = trained.world
    encoded = encode_exactly(trained.model, trained.tables, graph, features, world.num_users, world.cold)
    ranker = vector_ranker(
        encoded.vectors,
        world.num_users,
        objective.score_offset,
        cosine=objective.ranks_by_cosine,
        rating_bounds=objective.rating_bounds,
    )
    done = evaluation.run(ranker, SingleProcess(), lambda done, total: None)
    return {name: value for name, value in done.result.metrics.items() if math.isfinite(value)}


def _graph(trained: TrainedModel) -> FullGraph:
    device = torch.device("cpu")
    return FullGraph(trained.world.relations.fixed, device=device, kernel=choose_kernel(device))


def _triples(trained: TrainedModel, seed: int) -> Triples:
    """Every train interaction with one item that the user does not have."""
    world = trained.world
    users, items = (column.astype(np.int64) for column in world.folder.edges("train"))
    sampler = NegativeSampler(world.interactions, world.num_users)
    negatives = sampler.draw(users, 1, generator_for(seed, "attack"))[:, 0]
    return Triples(users=torch.from_numpy(users), items=torch.from_numpy(items), negatives=torch.from_numpy(negatives))
