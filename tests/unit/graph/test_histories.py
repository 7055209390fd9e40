"""Histories against plain lists: what is left out, how often an item is drawn, what a long history costs."""

import time

import numpy as np
import torch

from braidrec.graph.build import build_interactions
from braidrec.graph.histories import Histories

USERS = np.array([0, 0, 0, 1, 3, 3, 3, 3, 3, 3, 3])
ITEMS = np.array([4, 0, 2, 5, 9, 1, 3, 0, 7, 8, 4])
LISTS = {user: sorted(ITEMS[user == USERS].tolist()) for user in range(4)}


def make() -> Histories:
    return Histories(build_interactions(USERS, ITEMS, 4, 10), 4)


def lists_of(drawn) -> list[list[int]]:
    return [items[real].tolist() for items, real in zip(drawn.items, drawn.real, strict=True)]


def test_whole_histories() -> None:
    for users in (None, torch.tensor([3, 2, 0, 3])):
        whole = make().whole(users)
        asked = range(4) if users is None else users.tolist()
        found = [whole.columns[whole.offsets[row] : whole.offsets[row + 1]].tolist() for row in range(whole.num_rows)]
        assert found == [LISTS[user] for user in asked]
        assert whole.rows.tolist() == [row for row, user in enumerate(asked) for _ in LISTS[user]]
        assert whole.weights.tolist() == [1.0] * len(whole.columns)


def test_short_histories_are_whole_but_for_what_is_left_out() -> None:
    users, without = torch.tensor([0, 1, 2, 3, 3]), torch.tensor([2, 5, 0, 2, 9])
    found = lists_of(make().drawn(users, 20, without=without))
    assert found == [[0, 4], [], [], LISTS[3], [item for item in LISTS[3] if item != 9]]
    assert lists_of(make().drawn(users, 20)) == [LISTS[user] for user in users.tolist()]


def test_of_a_longer_history_every_item_is_as_likely() -> None:
    """Four of seven, or of six where one is left out; none twice, and over many draws each as often as any other."""
    users = torch.full((20_000,), 3)
    for without in (None, 3):
        drawn = make().drawn(users, 4, without=None if without is None else torch.full_like(users, without))
        assert drawn.real.all() and drawn.items.shape == (20_000, 4)
        assert (drawn.items.sort(-1).values.diff(dim=-1) > 0).all()
        counts = torch.bincount(drawn.items.flatten(), minlength=10)
        own = [item for item in LISTS[3] if item != without]
        assert torch.equal(counts.nonzero().flatten(), torch.tensor(own))
        expected = 20_000 * 4 / len(own)
        # Binomial with p = 4/7: a standard deviation of 70; five of them.
        assert (counts[own] - expected).abs().max() < 5 * np.sqrt(expected * (1 - 4 / len(own)))


def test_draws_are_those_of_torchs_seed() -> None:
    users = torch.full((50,), 3)
    torch.manual_seed(1)
    first = make().drawn(users, 3).items
    other = make().drawn(users, 3).items
    torch.manual_seed(1)
    assert torch.equal(make().drawn(users, 3).items, first) and not torch.equal(first, other)


def test_spread_is_even_and_always_the_same() -> None:
    found = make().spread(torch.tensor([3, 0, 2]), 3)
    assert lists_of(found) == [[LISTS[3][1], LISTS[3][3], LISTS[3][5]], LISTS[0], []]
    assert torch.equal(found.items, make().spread(torch.tensor([3, 0, 2]), 3).items)


def test_a_history_of_a_hundred_thousand_items_costs_what_its_cap_costs() -> None:
    """Time and size of a batch whose users have 10⁵ items are those of one whose users have as many as the cap."""
    long = np.arange(100_000)
    users = np.concatenate([np.zeros_like(long), np.ones(50, np.int64)])
    histories = Histories(build_interactions(users, np.concatenate([long, long[:50]]), 2, 100_000), 2)
    seconds = {}
    for user in (1, 0):
        batch = torch.full((512,), user)
        timed = []
        for _ in range(7):
            start = time.perf_counter()
            drawn = histories.drawn(batch, 50, without=torch.full((512,), 7))
            timed.append(time.perf_counter() - start)
        assert drawn.items.shape == (512, 50 if user == 0 else 49)
        assert not (drawn.items[drawn.real] == 7).any()
        seconds[user] = min(timed)
    assert seconds[0] < 10 * seconds[1] + 0.01
