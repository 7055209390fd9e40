"""Batches of users: everybody who has something once an epoch, over all ranks."""

from collections import Counter

import numpy as np
import pytest

from braidrec.data.delivery import ShardPlan, UserDelivery
from braidrec.graph.build import build_interactions

TRAIN = {0: [2], 1: [], 2: [0, 1, 2, 3, 4], 3: [1, 4], 4: [0, 3, 4], 5: [1], 6: []}
ACTIVE = [user for user, items in TRAIN.items() if items]


def delivery(rank: int = 0, world_size: int = 1, seed: int = 1) -> UserDelivery:
    users = np.array([user for user, items in TRAIN.items() for _ in items])
    items = np.array([item for items in TRAIN.values() for item in items])
    plan = ShardPlan(total_rows=len(ACTIVE), world_size=world_size)
    return UserDelivery(build_interactions(users, items, len(TRAIN), 5), len(TRAIN), plan, seed=seed, rank=rank)


def epoch(source: UserDelivery, number: int, batch_rows: int, steps: int) -> list[tuple[int, int]]:
    drawn: list[tuple[int, int]] = []
    for batch in source.batches(number, batch_rows, steps):
        assert {len(values) for values in batch.values()} == {batch_rows}
        real = batch["real"] == 1
        assert not batch["user"][~real].any() and not batch["item"][~real].any()
        drawn += zip(batch["user"][real].tolist(), batch["item"][real].tolist(), strict=True)
    return drawn


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_everybody_once_an_epoch(world_size: int, batch_rows: int) -> None:
    steps = -(-ShardPlan(total_rows=len(ACTIVE), world_size=world_size).rows_per_rank // batch_rows)
    pairs = [pair for rank in range(world_size) for pair in epoch(delivery(rank, world_size), 3, batch_rows, steps)]
    assert sorted(user for user, _ in pairs) == ACTIVE
    assert all(item in TRAIN[user] for user, item in pairs)


def test_the_order_is_new_each_epoch_and_the_same_for_one_seed() -> None:
    first, second = (epoch(delivery(), number, 2, 3) for number in (1, 2))
    assert first != second and first == epoch(delivery(), 1, 2, 3)
    assert first != epoch(delivery(seed=2), 1, 2, 3)


def test_each_item_of_a_user_is_as_likely() -> None:
    """1,000 epochs: 200 ± 13 of each; five deviations."""
    source = delivery()
    counts = Counter(item for number in range(1_000) for user, item in epoch(source, number, 5, 1) if user == 2)
    assert set(counts) == set(TRAIN[2])
    assert max(abs(count - 200) for count in counts.values()) < 65
