import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidrec.evaluation.held_out import UserItems

NUM_USERS, NUM_ITEMS = 6, 9
edges = st.lists(st.tuples(st.integers(0, NUM_USERS - 1), st.integers(0, NUM_ITEMS - 1)), max_size=40)


def build(pairs, dtype=np.int32, values=None):
    users = np.array([user for user, _ in pairs], dtype=dtype)
    items = np.array([item for _, item in pairs], dtype=dtype)
    return UserItems.from_edges(users, items, num_users=NUM_USERS, num_items=NUM_ITEMS, values=values)


def as_dict(user_items):
    rows, items = user_items.rows(np.arange(NUM_USERS))
    return {user: items[rows == user].tolist() for user in range(NUM_USERS)}


@settings(max_examples=100, deadline=None)
@given(edges, st.sampled_from([np.int32, np.int64]))
def test_holds_the_sorted_set_of_each_user(pairs, dtype):
    user_items = build(pairs, dtype)
    wanted = {user: sorted({item for owner, item in pairs if owner == user}) for user in range(NUM_USERS)}
    assert as_dict(user_items) == wanted
    assert user_items.counts.tolist() == [len(wanted[user]) for user in range(NUM_USERS)]
    assert user_items.users.tolist() == [user for user in range(NUM_USERS) if wanted[user]]


@settings(max_examples=100, deadline=None)
@given(edges, st.lists(st.integers(0, NUM_USERS - 1), max_size=8))
def test_rows_are_in_the_order_of_the_users_asked_for(pairs, users):
    rows, items = build(pairs).rows(np.array(users, dtype=np.int64))
    wanted = [
        (row, item)
        for row, user in enumerate(users)
        for item in sorted({item for owner, item in pairs if owner == user})
    ]
    assert list(zip(rows.tolist(), items.tolist(), strict=True)) == wanted


@settings(max_examples=100, deadline=None)
@given(edges, st.permutations(range(NUM_USERS)))
def test_contains(pairs, users):
    items = np.arange(-1, NUM_ITEMS)[None].repeat(NUM_USERS, axis=0)
    found = build(pairs).contains(np.array(users), items)
    assert found.tolist() == [[(user, item) in set(pairs) for item in range(-1, NUM_ITEMS)] for user in users]


@settings(max_examples=100, deadline=None)
@given(edges, edges)
def test_without(pairs, others):
    values = np.arange(len(pairs), dtype=np.float32)
    rest = build(pairs, values=values).without(build(others))
    last = {pair: float(value) for pair, value in zip(pairs, values, strict=True)}
    kept = sorted(set(pairs) - set(others))
    rows, items = rest.rows(np.arange(NUM_USERS))
    assert list(zip(rows.tolist(), items.tolist(), strict=True)) == kept
    assert rest.row_values(np.arange(NUM_USERS)).tolist() == [last[pair] for pair in kept]


def test_empty():
    nothing = UserItems.empty(num_users=3, num_items=4)
    assert nothing.counts.tolist() == [0, 0, 0]
    assert not nothing.contains(np.array([0, 2]), np.array([[0, 1], [2, -1]])).any()


@pytest.mark.parametrize(
    ("users", "items", "message"), [([0, 6], [0, 0], "user id 6 in row 1"), ([0], [-1], "item id")]
)
def test_ids_out_of_range_are_refused(users, items, message):
    with pytest.raises(ValueError, match=message):
        UserItems.from_edges(np.array(users), np.array(items), num_users=NUM_USERS, num_items=NUM_ITEMS)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\[1, 2\]"):
        UserItems.from_edges(np.array([0, 1]), np.array([0]), num_users=2, num_items=2)
