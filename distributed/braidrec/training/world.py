"""What a model looks at beside its own parameters: data, relations, features. Of a training and of a finished run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from braidrec.config.run import RunConfig
from braidrec.config.systems.addvae import ADDVAEConfig
from braidrec.config.systems.dvbpr import DVBPRConfig
from braidrec.config.systems.vmcf import VMCFConfig
from braidrec.data.folder import DatasetFolder
from braidrec.graph.build import build_interactions_from
from braidrec.graph.histories import Histories
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.graph.user_words import UserWords
from braidrec.models.pictures import ItemPictures
from braidrec.objectives.gather import Gather, own_rows
from braidrec.training.context import Collectives
from braidrec.training.environment import give_memory_back
from braidrec.training.features import FeatureSet, load_features
from braidrec.training.pictures import pictures_of_items
from braidrec.training.relations import RelationBuilder, RelationSet, keeps_modalities_apart, one_copy, views_of
from braidrec.training.surrounding import Surrounding
from braidrec.training.together import Tell, untold
from braidrec.training.words import words_of_users

PICTURE = "picture"
"""What the slices call having one."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything that is given.

    Attributes:
        folder: the data set.
        interactions: its train graph.
        relations: all that the model propagates over.
        features: of items and users, by modality.
        cold: `[num_items]` bool, items without train interactions.
        words: the users' words, of a model that wants them.
        pictures: the items' pictures, of a model that wants them.
        facts: what the log says of it.
    """

    folder: DatasetFolder
    interactions: Relation
    relations: RelationSet
    features: FeatureSet
    cold: Tensor
    words: UserWords | None = None
    pictures: ItemPictures | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_users(self) -> int:
        return self.folder.num_users

    @property
    def present(self) -> dict[str, NDArray[np.bool_]]:
        """By modality, `[num_items]` who has it; what a policy has filled in does not count."""
        pictures = {} if self.pictures is None else {PICTURE: self.pictures.present}
        return {name: table.present for name, table in self.features.tables.items()} | pictures


def open_world(
    config: RunConfig,
    folder: DatasetFolder,
    context: Collectives,
    hidden: Mapping[str, NDArray[np.bool_]] | None = None,
    tell: Tell = untold,
) -> World:
    """Map, or on the first process of a node build, what the configured model looks at.

    Args:
        hidden: by modality, items that are treated as if they did not have it.
        tell: is told how far long work is.
    Raises:
        ConfigError: modalities that the data set does not have.
        DatasetError: damaged data.
    """
    cache, key = cache_folder(config), f"{INTERACTIONS}:{folder.digest}"
    interactions = load_interactions(folder, context, cache)
    model = config.model
    features = load_features(
        model.modalities, folder, interactions, context, cache, hidden, users=model.user_modalities
    )
    builder = RelationBuilder(context, cache, interactions, key, folder.num_users)
    if model.item_graph is not None:
        # Neighbours are those of the vectors as they were learnt from, whatever is hidden at evaluation.
        whole = features if hidden is None else load_features(model.modalities, folder, interactions, context, cache)
        builder.content(model.item_graph, whole.tables, combined=not keeps_modalities_apart(model))
    if model.user_graph is not None:
        builder.users(model.user_graph)
    if isinstance(model.encoder, VMCFConfig) and model.encoder.relations:
        builder.related(model.encoder, folder)
    views = views_of(model)
    pictures, facts = None, dict[str, str]()
    if isinstance(model.encoder, DVBPRConfig):
        table = pictures_of_items(model.encoder, folder, context, cache, tell)
        pictures = ItemPictures(table.pixels, table.place, side=model.encoder.side)
        facts["images"] = table.fact
    return World(
        folder=folder,
        interactions=interactions,
        relations=RelationSet(builder.built, views=views, seed=config.seed),
        features=features,
        cold=(interactions.in_degree[folder.num_users :] == 0).to(context.device),
        words=(
            words_of_users(model.encoder, folder, interactions, context, cache)
            if isinstance(model.encoder, ADDVAEConfig)
            else None
        ),
        pictures=pictures,
        facts=facts,
    )


def surrounding_of(
    world: World,
    *,
    precision: str = "fp32",
    gather: Gather = own_rows,
    pretrained: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> Surrounding:
    """What a model is built for. Arguments as for `Surrounding`."""
    return Surrounding(
        dims=world.features.dims,
        user_dims=world.features.user_dims,
        precision=precision,
        gather=gather,
        interactions=world.interactions,
        shapes=world.features.shapes,
        histories=Histories(world.interactions, world.num_users),
        words=world.words,
        pictures=world.pictures,
        pretrained=pretrained,
        rank=rank,
        world_size=world_size,
    )


def load_interactions(folder: DatasetFolder, context: Collectives, cache: Path) -> Relation:
    """The train graph, memory-mapped."""

    def build() -> Relation:
        edges = ((rows["user"], rows["item"]) for rows in folder.chunks("train", ["user", "item"]))
        return build_interactions_from(edges, folder.num_rows("train"), folder.num_users, folder.num_items)

    interactions = one_copy(f"{INTERACTIONS}:{folder.digest}", build, context, cache, symmetric=True)
    give_memory_back()
    return interactions


def cache_folder(config: RunConfig) -> Path:
    """Where the node's shared graphs and features lie."""
    if config.cache is not None:
        return Path(config.cache).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "braidrec"
