"""A composed model with one task on twelve nodes, a step of it, and losses written out in loops."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from composed_oracle import FEATURES, RELATIONS, build
from item_graph_world import make_batch, make_step, make_tables, run_step, source_over

from braidrec.config.model import FusionConfig, LightGCNConfig
from braidrec.config.self_supervision import TaskConfig
from braidrec.models.composed import ComposedRecommender
from braidrec.models.contract import Batch, LossTerm

WEIGHT = 0.3
BATCHES = {
    "six rows": make_batch(),
    # Item 0 is in a padding row alone, item 6 a negative alone: neither takes part.
    "five rows": make_batch(start=1),
    # Here item 0 is a real row's negative too, which must not make a positive of it.
    "negative in padding": replace(make_batch(start=1), negatives=torch.zeros(5, 2, dtype=torch.int64)),
    "padding only": make_batch(start=5),
}
USERS_OF = {"six rows": [0, 2, 4], "five rows": [0, 2, 4], "negative in padding": [0, 2, 4], "padding only": []}
ITEMS_OF = {
    "six rows": [0, 2, 3, 4, 5],
    "five rows": [2, 3, 4, 5],
    "negative in padding": [2, 3, 4, 5],
    "padding only": [],
}
HAS = {name: set(np.flatnonzero(present.numpy()).tolist()) for name, (_, present) in FEATURES.items()}
Tables = Mapping[str, torch.Tensor]


def with_task(task: TaskConfig, fusion: FusionConfig | None = None, **settings: object) -> ComposedRecommender:
    settings.setdefault("encoder", LightGCNConfig(layers=2))
    return build(fusion or FusionConfig(), self_supervision={"extra": task}, **settings)


def terms_of(
    model: ComposedRecommender, batch: Batch, mode: str = "full", relations: Mapping = RELATIONS
) -> tuple[Tables, Mapping[str, LossTerm]]:
    """The tables, and the terms of a step."""
    tables = make_tables(model)
    return tables, run_step(model, source_over(relations, mode), tables, FEATURES, make_step(batch))[1]


def assert_term(term: LossTerm, wanted: list[float]) -> None:
    """The term is a sum over so many rows."""
    assert term.coefficient == WEIGHT
    assert term.weight.item() == len(wanted)
    assert abs(term.total.item() - sum(wanted)) < 1e-5


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def info_nce(first: np.ndarray, second: np.ndarray, rows: list[int], temperature: float = 0.2) -> list[float]:
    """−log of the pair's share among the row's pairs with the second view of all `rows`."""
    losses = []
    for row in rows:
        shares = [np.exp(cosine(first[row], second[other]) / temperature) for other in rows]
        losses.append(-np.log(shares[rows.index(row)] / sum(shares)))
    return losses


def linear(module: torch.nn.Linear, rows: np.ndarray) -> np.ndarray:
    bias = 0.0 if module.bias is None else module.bias.detach().numpy()
    return rows @ module.weight.detach().numpy().T + bias


def perceptron(module: torch.nn.Module, rows: np.ndarray) -> np.ndarray:
    """Linear, leaky ReLU, linear."""
    first, last = (each for each in module.layers if isinstance(each, torch.nn.Linear))
    inner = linear(first, rows)
    return linear(last, np.where(inner > 0, inner, 0.01 * inner))
