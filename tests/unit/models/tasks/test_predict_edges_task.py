"""Interactions told from pairs that are none, a row at a time."""

from math import exp, log, log1p

import numpy as np
import pytest
import torch
from composed_oracle import FEATURES, RELATIONS, vectors_of
from dense_oracles import NUM_USERS
from item_graph_world import assert_everything_learns
from task_world import WEIGHT, assert_term, terms_of, with_task

from braidrec.config.model import FusionConfig
from braidrec.config.self_supervision import EdgePredictionConfig
from braidrec.models.contract import Batch


def batch_of(users: list[int], items: list[int], padding: int) -> Batch:
    """Padding rows are those of user 0 and item 0."""
    real = torch.tensor([1.0] * len(users) + [0.0] * padding, dtype=torch.float64)
    return Batch(
        users=torch.tensor(users + [0] * padding),
        items=torch.tensor(items + [0] * padding),
        negatives=None,
        real=real,
        weight=real,
    )


@pytest.mark.parametrize("negatives", [1, 3])
@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("mode", ["full", "sampled"])
def test_with_two_items_each_is_the_others_negative(mode: str, padding: int, negatives: int) -> None:
    """Neither the row's own item, in whatever row, nor that of a padding row is ever drawn."""
    users, items = [0, 2, 4, 2, 1], [3, 5, 5, 3, 3]
    model = with_task(EdgePredictionConfig(negatives=negatives, weight=WEIGHT))
    tables, terms = terms_of(model, batch_of(users, items, padding), mode)
    vectors = vectors_of(model, FusionConfig(), tables)
    wanted = []
    for user, item in zip(users, items, strict=True):
        score, other = (float(vectors[user] @ vectors[NUM_USERS + each]) for each in (item, 8 - item))
        wanted.append(log1p(exp(-score)) - log(1 - 1 / (1 + exp(-other))))
    assert_term(terms["extra"], wanted)


@pytest.mark.parametrize("batch", [batch_of([0, 2], [3, 3], 2), batch_of([], [], 3)], ids=["one item", "padding"])
def test_without_another_item_there_is_nothing_to_tell_apart(batch: Batch) -> None:
    model = with_task(EdgePredictionConfig(weight=WEIGHT))
    tables, terms = terms_of(model, batch)
    assert_term(terms["extra"], [])
    terms["extra"].total.backward()
    assert all(np.isfinite(rows.grad.numpy()).all() for rows in tables.values())


def test_everything_learns() -> None:
    for timing in ("early", "late"):
        model = with_task(EdgePredictionConfig(negatives=2), FusionConfig(timing=timing))
        assert_everything_learns(model, RELATIONS, FEATURES)
