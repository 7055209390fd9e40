"""A preset's model on the twelve nodes, and what its contrast must be, by plain loops."""

from collections.abc import Mapping
from math import exp, log
from pathlib import Path

import numpy as np
from item_graph_world import NUM_USERS, Step

from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.graph.relation import Relation
from braidrec.models.composed import ComposedRecommender
from braidrec.training.model_factory import build_model
from braidrec.training.relations import RelationSet, views_of
from braidrec.training.surrounding import Surrounding

PRESETS = Path(__file__).parents[4] / "configs" / "models"
DIM = 3


def preset(name: str, *overrides: str) -> RunConfig:
    return load_config(RunConfig, [PRESETS / f"{name}.yaml"], ["data.path=mine", f"model.dim={DIM}", *overrides])


def model_of(config: RunConfig) -> ComposedRecommender:
    model = build_model(config.model, Surrounding(dims={}))
    assert isinstance(model, ComposedRecommender)
    return model.double()


def views_drawn(config: RunConfig, interactions: Relation, *, epoch: int) -> dict[str, Relation]:
    """The perturbed relations of an epoch, by name."""
    relations = RelationSet({interactions.name: interactions}, views=views_of(config.model), seed=config.seed)
    return relations.drawn(epoch, interactions)


def nodes_of(step: Step) -> dict[str, list[int]]:
    """The distinct users and positive items of the real rows, as nodes."""
    batch = step.context.batch
    real = [row for row in range(batch.size) if batch.real[row]]
    users = sorted({int(batch.users[row]) for row in real})
    return {"/users": users, "/items": sorted({NUM_USERS + int(batch.items[row]) for row in real})}


def mean_info_nce(first: np.ndarray, second: np.ndarray, nodes: list[int], temperature: float) -> float:
    """Mean over `nodes` of −log of the pair's share, negatives from the second view."""

    def similarity(node: int, other: int) -> float:
        lengths = np.linalg.norm(first[node]) * np.linalg.norm(second[other])
        return exp(float(first[node] @ second[other]) / float(lengths) / temperature)

    losses = [-log(similarity(node, node) / sum(similarity(node, other) for other in nodes)) for node in nodes]
    return sum(losses) / len(losses)


def expected_terms(
    name: str, first: np.ndarray, second: np.ndarray, step: Step, *, temperature: float
) -> Mapping[str, float]:
    """By term, the mean over its nodes, from the views' vectors of all nodes."""
    nodes = nodes_of(step)
    return {f"{name}{part}": mean_info_nce(first, second, nodes[part], temperature) for part in nodes}
