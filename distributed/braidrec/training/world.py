"""What a model looks at beside its own parameters: data, relations, features. Of a training and of a finished run."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.graph.build import build_interactions
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.graph.share import shared_relation
from braidrec.training.context import Collectives
from braidrec.training.features import FeatureSet
from braidrec.training.relations import RelationSet


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything that is given.

    Attributes:
        folder: the data set.
        interactions: its train graph.
        relations: all that the model propagates over.
        features: of the items, by modality.
        cold: `[num_items]` bool, items without train interactions.
    """

    folder: DatasetFolder
    interactions: Relation
    relations: RelationSet
    features: FeatureSet
    cold: Tensor

    @property
    def num_users(self) -> int:
        return self.folder.num_users


def open_world(config: RunConfig, folder: DatasetFolder, context: Collectives) -> World:
    """Map, or on the first process of a node build, what the configured model looks at."""
    interactions = load_interactions(folder, context, cache_folder(config))
    return World(
        folder=folder,
        interactions=interactions,
        relations=RelationSet({INTERACTIONS: interactions}, seed=config.seed),
        features=FeatureSet({}, context.device),
        cold=(interactions.in_degree[folder.num_users :] == 0).to(context.device),
    )


def load_interactions(folder: DatasetFolder, context: Collectives, cache: Path) -> Relation:
    """The train graph, memory-mapped."""

    def build() -> Relation:
        return build_interactions(*folder.edges("train"), folder.num_users, folder.num_items)

    return one_copy(cache, f"{INTERACTIONS}:{folder.digest}", build, context, symmetric=True)


def load_for_sampling(relation: Relation, key: str, context: Collectives, cache: Path) -> Relation:
    """A relation in the form that DGL samples from, memory-mapped."""
    return one_copy(cache, f"{key}:int64", relation.widened, context, symmetric=relation.symmetric)


def one_copy(
    cache: Path, key: str, build: Callable[[], Relation], context: Collectives, *, symmetric: bool
) -> Relation:
    """One copy a node: local rank 0 builds and stores the relation, the others wait and map it."""
    if context.local_rank != 0:
        context.barrier()
        return shared_relation(cache, key, build, symmetric=symmetric)
    relation = shared_relation(cache, key, build, symmetric=symmetric)
    context.barrier()
    return relation


def cache_folder(config: RunConfig) -> Path:
    """Where the node's shared graphs and features lie."""
    if config.cache is not None:
        return Path(config.cache).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "braidrec"
