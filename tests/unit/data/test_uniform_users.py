"""LightGCN's official sampler: a user uniformly, then one of its items uniformly."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from braidrec.data.delivery import ShardPlan, UniformUserDelivery
from braidrec.graph.build import build_interactions

TRAIN = {0: [2], 1: [], 2: [0, 1, 2, 3, 4], 3: [1, 4], 4: [0, 3, 4], 5: [1]}
"""User 1 has nothing to draw, and one user has five times the items of another."""
NUM_ROWS = sum(map(len, TRAIN.values()))
ERROR_RATE = 1e-4
"""Probability with which a chi-square test fails a correct sampler, for a seed that was not tried."""


def delivery(rank: int = 0, world_size: int = 1, *, seed: int = 1, total_rows: int = NUM_ROWS) -> UniformUserDelivery:
    users = np.array([user for user, items in TRAIN.items() for _ in items])
    items = np.array([item for items in TRAIN.values() for item in items])
    plan = ShardPlan(total_rows=total_rows, world_size=world_size)
    return UniformUserDelivery(build_interactions(users, items, len(TRAIN), 5), len(TRAIN), plan, seed=seed, rank=rank)


def pairs(source: UniformUserDelivery, epoch: int, batch_rows: int, steps: int) -> list[tuple[int, int]]:
    drawn: list[tuple[int, int]] = []
    for batch in source.batches(epoch, batch_rows, steps):
        assert {len(values) for values in batch.values()} == {batch_rows}
        real = batch["real"] == 1
        drawn += zip(batch["user"][real].tolist(), batch["item"][real].tolist(), strict=True)
    return drawn


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_rows", [1, 3, 5, 100])
def test_an_epoch_has_as_many_draws_as_there_are_rows(world_size: int, batch_rows: int) -> None:
    steps = -(-ShardPlan(total_rows=NUM_ROWS, world_size=world_size).rows_per_rank // batch_rows)
    counts = [len(pairs(delivery(rank, world_size), 1, batch_rows, steps)) for rank in range(world_size)]
    assert sum(counts) == NUM_ROWS
    assert max(counts) - min(counts) <= 1


def test_users_are_uniform_and_items_uniform_within_a_user() -> None:
    count = 30_000
    drawn = Counter(pairs(delivery(total_rows=count), 1, 1_000, 30))
    assert set(drawn) == {(user, item) for user, items in TRAIN.items() for item in items}
    by_user = Counter({user: sum(drawn[user, item] for item in items) for user, items in TRAIN.items() if items})
    assert chisquare(list(by_user.values())).pvalue > ERROR_RATE
    for user, items in TRAIN.items():
        if len(items) > 1:
            assert chisquare([drawn[user, item] for item in items]).pvalue > ERROR_RATE


def test_draws_are_a_function_of_seed_epoch_and_rank() -> None:
    places = [(seed, epoch, rank) for seed in (1, 2) for epoch in (1, 2) for rank in (0, 1)]
    orders = [tuple(pairs(delivery(rank, 2, seed=seed, total_rows=200), epoch, 20, 5)) for seed, epoch, rank in places]
    again = [tuple(pairs(delivery(rank, 2, seed=seed, total_rows=200), epoch, 20, 5)) for seed, epoch, rank in places]
    assert orders == again
    assert len(set(orders)) == len(places)


def test_steps_of_an_epoch_differ() -> None:
    drawn = pairs(delivery(total_rows=200), 1, 20, 10)
    assert drawn[:20] != drawn[20:40]
