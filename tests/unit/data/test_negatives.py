"""Negative items: never a train item, and distributed as promised. Chi-square tests fail a correct sampler with the
stated probability for a seed that was not tried; with the seeds here they pass for good."""

import numpy as np
import pytest
from scipy.stats import chisquare

from braidrec.data.errors import DatasetError
from braidrec.data.negatives import NegativeSampler
from braidrec.graph.build import build_interactions

NUM_USERS, NUM_ITEMS = 6, 9
TRAIN: dict[int, list[int]] = {
    0: [0, 1, 2, 3, 4, 5, 6, 7],
    1: [0, 2, 4, 6, 8],
    2: [0],
    3: [],
    4: [0, 1, 2],
    5: [0, 2, 7, 8],
}
"""User 0 can only get item 8, user 3 has none."""
DRAWS = 20_000
ERROR_RATE = 1e-4


def relation(train: dict[int, list[int]] = TRAIN, num_items: int = NUM_ITEMS):
    users = np.array([user for user, items in train.items() for _ in items], dtype=np.int64)
    items = np.array([item for items in train.values() for item in items], dtype=np.int64)
    return build_interactions(users, items, len(train), num_items)


def counts(sampler: NegativeSampler, user: int, num_items: int = NUM_ITEMS) -> np.ndarray:
    drawn = sampler.draw(np.full(DRAWS // 2, user), 2, np.random.default_rng(user))
    return np.bincount(drawn.reshape(-1), minlength=num_items)


def refuse_unlikely(seen: np.ndarray, share: np.ndarray) -> None:
    """Chi-square over the items that can be drawn; the others must never be."""
    possible = share > 0
    assert seen[~possible].sum() == 0
    if possible.sum() > 1:
        expected = share[possible] / share.sum() * seen.sum()
        assert chisquare(seen[possible], expected).pvalue > ERROR_RATE / NUM_USERS


def test_membership_of_every_pair() -> None:
    users, items = (grid.reshape(-1) for grid in np.meshgrid(range(NUM_USERS), range(NUM_ITEMS), indexing="ij"))
    found = NegativeSampler(relation(), NUM_USERS).is_train_item(users, items)
    assert found.tolist() == [item in TRAIN[user] for user, item in zip(users.tolist(), items.tolist(), strict=True)]


def test_uniform_over_the_items_that_are_allowed() -> None:
    sampler = NegativeSampler(relation(), NUM_USERS)
    for user, items in TRAIN.items():
        share = np.ones(NUM_ITEMS)
        share[items] = 0
        refuse_unlikely(counts(sampler, user), share)


@pytest.mark.parametrize("exponent", [0.0, 0.75, 1.0])
def test_popularity_to_a_power(exponent: float) -> None:
    train = {**TRAIN, 0: [0, 1, 2]}
    degree = np.bincount([item for items in train.values() for item in items], minlength=NUM_ITEMS + 1)
    assert degree.tolist() == [5, 2, 4, 0, 1, 0, 1, 1, 2, 0]
    sampler = NegativeSampler(relation(train, NUM_ITEMS + 1), NUM_USERS, kind="popularity", exponent=exponent)
    for user, items in train.items():
        share = np.array([count**exponent if count else 0.0 for count in degree.tolist()])
        share[items] = 0
        refuse_unlikely(counts(sampler, user, NUM_ITEMS + 1), share)


def test_each_row_is_its_own_users() -> None:
    """Mixed users and several negatives a row: the row's user decides."""
    users = np.random.default_rng(3).integers(0, NUM_USERS, 3_000)
    drawn = NegativeSampler(relation(), NUM_USERS).draw(users, 3, np.random.default_rng(4))
    assert drawn.shape == (3_000, 3)
    assert drawn.dtype == np.int64
    assert all(
        item not in TRAIN[user] for user, row in zip(users.tolist(), drawn.tolist(), strict=True) for item in row
    )
    assert set(drawn[users == 0].reshape(-1).tolist()) == {8}
    # The negatives of a row are drawn one by one: with 9 items they agree in about one row of nine.
    free = drawn[users == 3]
    assert 0.05 < (free[:, 0] == free[:, 1]).mean() < 0.2


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_a_function_of_the_generator(kind: str) -> None:
    sampler = NegativeSampler(relation({**TRAIN, 0: [0]}), NUM_USERS, kind=kind)
    users = np.arange(NUM_USERS).repeat(50)
    first, again, other = (sampler.draw(users, 2, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_no_rows() -> None:
    drawn = NegativeSampler(relation(), NUM_USERS).draw(np.empty(0, np.int64), 2, np.random.default_rng(0))
    assert drawn.shape == (0, 2)


def test_a_user_with_all_items_has_no_negative() -> None:
    train = {0: [1], 1: [0, 1, 2], 2: [0, 2, 1]}
    with pytest.raises(DatasetError, match=r"user 1 \(and 1 more\) has all 3 items"):
        NegativeSampler(relation(train, 3), 3)


def test_popularity_never_draws_an_item_without_interactions() -> None:
    """User 1 has every item that was ever seen: item 2 would be left, but popularity gives it no share."""
    train = {0: [1], 1: [0, 1]}
    assert set(
        NegativeSampler(relation(train, 3), 2).draw(np.ones(20, np.int64), 1, np.random.default_rng(0)).flat
    ) == {2}
    with pytest.raises(DatasetError, match=r"user 1 .* all 2 items"):
        NegativeSampler(relation(train, 3), 2, kind="popularity")


@pytest.mark.parametrize("kind", ["uniform", "popularity"])
def test_shared_negatives_are_few_and_each_rows_own_law_stays(kind: str) -> None:
    """Many draws, each with a pool of its own: of each draw one row is counted, for the rows of one are dependent."""
    train = {**TRAIN, 0: [0, 1, 2]}
    degree = np.bincount([item for items in train.values() for item in items], minlength=NUM_ITEMS)
    shared = NegativeSampler(relation(train), NUM_USERS, kind=kind, exponent=1.0, shared=3)
    rng = np.random.default_rng(8)
    users = np.arange(NUM_USERS)
    drawn = np.stack([shared.draw(users, 1, rng)[:, 0] for _ in range(4_000)])
    for user, items in train.items():
        share = np.ones(NUM_ITEMS) if kind == "uniform" else degree.astype(float)
        share[items] = 0
        refuse_unlikely(np.bincount(drawn[:, user], minlength=NUM_ITEMS), share)


def test_a_batch_shares_its_negatives() -> None:
    train = {user: [user] for user in range(50)}
    for size in (1, 5, 40):
        sampler = NegativeSampler(relation(train, 10_000), len(train), shared=size)
        drawn = sampler.draw(np.repeat(np.arange(50), 20), 4, np.random.default_rng(size))
        assert 0.5 * size < len(np.unique(drawn)) <= size
        again = sampler.draw(np.repeat(np.arange(50), 20), 4, np.random.default_rng(size + 1))
        assert len(np.intersect1d(drawn, again)) < size  # others the next time


def test_who_has_all_shared_negatives_draws_others() -> None:
    """User 0 can only get item 8, which a pool of one seldom is."""
    sampler = NegativeSampler(relation(), NUM_USERS, shared=1)
    for seed in range(30):
        assert sampler.draw(np.array([0, 3]), 1, np.random.default_rng(seed))[0, 0] == 8
