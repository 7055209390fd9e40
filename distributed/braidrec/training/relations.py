"""The relations of a run: those that stay, and views of them that are drawn anew each epoch."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from braidrec.config.load import ConfigError
from braidrec.config.model import ItemGraphConfig, ModelConfig, SystemConfig, UserGraphConfig
from braidrec.config.self_supervision import (
    ContrastConfig,
    EdgeDropoutConfig,
    EdgeNoiseConfig,
    NodeDropoutConfig,
)
from braidrec.config.systems.selfcf import SelfCFConfig
from braidrec.config.systems.vmcf import VMCFConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.randomness import seed_for
from braidrec.features.table import FeatureTable
from braidrec.graph.co_interaction import co_interaction_relation
from braidrec.graph.content import combined_relation, content_relation
from braidrec.graph.knn import content_neighbours
from braidrec.graph.related import RELATED, co_related, listed_relation
from braidrec.graph.relation import INTERACTIONS, PRUNED, TARGETS, Relation
from braidrec.graph.share import shared_relation
from braidrec.graph.views import drop_edges, drop_edges_by_degree, drop_nodes, weight_noise
from braidrec.mapped import once_per_node
from braidrec.training.context import Collectives


class View(Protocol):
    """A random change of a relation."""

    def __call__(self, relation: Relation, *, seed: int, view: str) -> Relation:
        """A function of the seed and the view's name, so that all ranks draw the same. It is called `relation~view`."""
        ...


class RelationSet:
    """Relations by name.

    Args:
        fixed: those that stay as they are.
        views: by name, a view of the interactions.
        seed: of the run.
    """

    def __init__(
        self,
        fixed: Mapping[str, Relation],
        *,
        views: Mapping[str, View] | None = None,
        seed: int = 0,
    ) -> None:
        self.fixed, self.views, self.seed = dict(fixed), dict(views or {}), seed

    def as_large_as(self, name: str) -> Relation:
        """A fixed relation by whose size the cost of another can be told, before that exists: of a view the one that it
        perturbs, of a learned one the interactions."""
        return self.fixed.get(name.partition("~")[0], self.fixed[INTERACTIONS])

    def drawn(self, epoch: int, interactions: Relation) -> dict[str, Relation]:
        """The views of an epoch.

        Args:
            interactions: to be perturbed.
        """
        return {
            name: view(interactions, seed=seed_for(self.seed, f"view {name}", epoch), view=name.partition("~")[2])
            for name, view in self.views.items()
        }


def view_name(task: str, place: int, layer: int = 0) -> str:
    """The relation of a task's view (1 or 2) in a layer."""
    return f"{INTERACTIONS}~{task}.{place}.{layer}"


def relations_of(model: ModelConfig) -> tuple[str, ...]:
    """What a system propagates over; () for a composed model, whose parts say it."""
    return model.encoder.relations if isinstance(model.encoder, SystemConfig) else ()


def keeps_modalities_apart(model: ModelConfig) -> bool:
    """Whether the model wants an item graph for each modality, to weigh them itself, and not their sum."""
    learned = model.item_graph is not None and model.item_graph.learned is not None
    return learned or "content/*" in relations_of(model)


def layers_of(model: ModelConfig) -> int:
    """Hops on the user–item graph."""
    return getattr(model.encoder, "layers", 0)


def trained_on(model: ModelConfig) -> str:
    """What an encoder propagates over while training: the interactions, or those that pruning leaves of them."""
    return PRUNED if hasattr(model.encoder, "prune_rate") else INTERACTIONS


def views_of(model: ModelConfig) -> dict[str, View]:
    """The perturbed relations that training looks at, by name."""
    found: dict[str, View] = {}
    if trained_on(model) == PRUNED:
        found[PRUNED] = partial(drop_edges_by_degree, keep_rate=1.0 - model.encoder.prune_rate)  # type: ignore[union-attr]
    if isinstance(model.encoder, SelfCFConfig) and model.encoder.view == "edge_dropout":
        found[TARGETS] = partial(drop_edges, rate=model.encoder.rate)
    layers = layers_of(model)
    for name, task in model.self_supervision.items():
        if not isinstance(task, ContrastConfig):
            continue
        for place, wanted in ((1, task.first), (2, task.second)):
            if isinstance(wanted, EdgeDropoutConfig):
                for layer in range(layers if wanted.per_layer else 1):
                    found[view_name(name, place, layer)] = partial(drop_edges, rate=wanted.rate)
            elif isinstance(wanted, NodeDropoutConfig):
                found[view_name(name, place)] = partial(drop_nodes, rate=wanted.rate)
            elif isinstance(wanted, EdgeNoiseConfig):
                found[view_name(name, place)] = partial(weight_noise, std=wanted.std)
    return found


def one_copy(
    key: str, build: Callable[[], Relation], context: Collectives, cache: Path, *, symmetric: bool
) -> Relation:
    """The relation stored under `key` in the node's cache; the first process of a node builds it."""
    make = partial(shared_relation, cache, key, build, symmetric=symmetric)
    return once_per_node(make, local_rank=context.local_rank, barrier=context.barrier)


class RelationBuilder:
    """Builds or maps relations, one copy a node, under keys that name their content.

    Args:
        context: this worker.
        cache: the node's cache folder.
        interactions: the train graph.
        key: what identifies it.
        num_users: nodes below are users.
    """

    def __init__(self, context: Collectives, cache: Path, interactions: Relation, key: str, num_users: int) -> None:
        self.context, self.cache = context, cache
        self.interactions, self.key, self.num_users = interactions, key, num_users
        self.built: dict[str, Relation] = {INTERACTIONS: interactions}
        self.keys = {INTERACTIONS: key}

    def add(self, name: str, key: str, build: Callable[[], Relation], *, symmetric: bool = False) -> Relation:
        """The relation of this name; the first process of a node builds it."""
        relation = one_copy(key, build, self.context, self.cache, symmetric=symmetric)
        self.built[name], self.keys[name] = relation, key
        return relation

    def content(self, config: ItemGraphConfig, tables: Mapping[str, FeatureTable], *, combined: bool) -> None:
        """`content/<modality>` of every modality; with `combined` their weighted sum `content` instead.

        Raises:
            ConfigError: a negative weight.
        """
        for name, weight in (config.weights or {}).items():
            if weight < 0:
                raise ConfigError(f"model.item_graph.weights: that of {name!r} is {weight}; it must not be below 0")
        parts = {name: self._content_of(config, table) for name, table in tables.items()}
        if not combined:
            return
        weights = config.weights or {name: 1 / len(parts) for name in parts}
        keys = ";".join(f"{name}:{weights[name]}:{self.keys[f'content/{name}']}" for name in sorted(parts))
        self.add("content", f"combined:{keys}", lambda: combined_relation(parts, weights))
        for name in parts:
            del self.built[f"content/{name}"]

    def users(self, config: UserGraphConfig) -> None:
        """`co_interaction`."""
        weight = {"counts": "none", "softmax": "softmax", "cosine": "cosine"}[config.weighting]
        key = f"co_interaction:{config.neighbours}:{weight}:{self.key}"
        make = partial(co_interaction_relation, self.interactions, self.num_users, config.neighbours, weight=weight)  # type: ignore[arg-type]
        self.add("co_interaction", key, make)

    def related(self, config: VMCFConfig, folder: DatasetFolder) -> None:
        """`related`: pairs that the data set lists, or items that share most users."""
        name = config.relation
        if name is None:
            key = f"{RELATED}:co:{config.neighbours}:{self.key}"
            self.add(RELATED, key, partial(co_related, self.interactions, self.num_users, config.neighbours))
            return

        def build() -> Relation:
            sources, destinations, _ = folder.relation(name)
            return listed_relation(sources, destinations, folder.num_users, folder.num_items)

        self.add(RELATED, f"{RELATED}:{name}:{folder.digest}", build)

    def _content_of(self, config: ItemGraphConfig, table: FeatureTable) -> Relation:
        weight = "similarity" if config.edge_weights == "cosine" else "binary"
        name = f"content/{table.name}"

        def build() -> Relation:
            neighbours = content_neighbours(
                table.values, table.present, config.neighbours, device=self.context.device, method=config.method
            )
            return content_relation(neighbours, self.num_users, table.name, weight=weight)  # type: ignore[arg-type]

        key = f"{name}:{config.neighbours}:{weight}:{config.method}:{self.num_users}:{table.content_key}"
        return self.add(name, key, build)
