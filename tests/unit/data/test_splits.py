"""Split rules against plain loops over users."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidrec.data import splits
from braidrec.data.splits import TEST, TRAIN, VALID

USERS = st.lists(st.integers(0, 5), min_size=1, max_size=60)


def naive_tail(users, sort_keys, held_out):
    """Label by walking every user's rows in order; held_out(n) → (valid, test)."""
    labels = [TRAIN] * len(users)
    for user in set(users):
        rows = sorted((row for row in range(len(users)) if users[row] == user), key=lambda row: sort_keys[row])
        num_valid, num_test = held_out(len(rows))
        for place, row in enumerate(rows):
            if place >= len(rows) - num_test:
                labels[row] = TEST
            elif place >= len(rows) - num_test - num_valid:
                labels[row] = VALID
    return labels


@settings(deadline=None, max_examples=60)
@given(users=USERS, data=st.data())
def test_user_time_and_leave_one_out_follow_time_then_position(users, data):
    times = data.draw(st.lists(st.integers(0, 4), min_size=len(users), max_size=len(users)))
    positions = data.draw(st.permutations(range(len(users))))
    keys = list(zip(times, positions, strict=True))
    array = np.array(users, np.int32)
    order = splits.order_by_time(array, np.array(times), np.array(positions))
    ranks, sizes = splits.ranks_within_users(array, order)
    for mine, plain in (
        (splits.held_out_one(sizes), lambda n: (int(n >= 3), int(n >= 2))),
        (splits.held_out_shares(sizes, 0.3, 0.2), lambda n: _shares(n, 0.3, 0.2)),
    ):
        assert splits.label_tail(ranks, sizes, *mine).tolist() == naive_tail(users, keys, plain)


def _shares(rows, valid, test):
    num_test = min(int(rows * test + 0.5), rows - 1)
    return min(int(rows * valid + 0.5), rows - 1 - num_test), num_test


@pytest.mark.parametrize(
    ("rows", "valid", "test"),
    # By hand: fewer than 10 → one each; 10 → 2 held out; 14 → 2; 15 → 3 (1 test); 25 → 5 (2 test); 100 → 20.
    [(1, 0, 0), (2, 0, 1), (3, 1, 1), (9, 1, 1), (10, 1, 1), (14, 1, 1), (15, 2, 1), (25, 3, 2), (100, 10, 10)],
)
def test_mmrec_rule_by_hand(rows, valid, test):
    num_valid, num_test = splits.held_out_mmrec(np.array([rows], np.int32))
    assert (num_valid[0], num_test[0]) == (valid, test)


@pytest.mark.parametrize(
    ("rows", "valid", "test"), [(1, 0, 0), (2, 0, 0), (4, 0, 0), (5, 1, 1), (10, 1, 1), (15, 2, 2), (24, 2, 2)]
)
def test_shares_of_a_tenth_by_hand(rows, valid, test):
    num_valid, num_test = splits.held_out_shares(np.array([rows], np.int32), 0.1, 0.1)
    assert (num_valid[0], num_test[0]) == (valid, test)


def test_large_shares_leave_one_row_in_train():
    num_valid, num_test = splits.held_out_shares(np.array([1, 2, 3], np.int32), 0.49, 0.49)
    assert (np.array([1, 2, 3]) - num_valid - num_test >= 1).all()


@settings(deadline=None, max_examples=40)
@given(users=USERS, seed=st.integers(0, 5))
def test_labels_do_not_depend_on_the_layout_of_rows(users, seed):
    array = np.array(users, np.int32)
    keys = np.random.default_rng(seed).integers(0, 2**62, len(users)).astype(np.uint64)
    positions = np.arange(len(users))

    def labels_of(rows):
        order = splits.order_by_key(array[rows], keys[rows], positions[rows])
        return splits.label_tail(*(ranked := splits.ranks_within_users(array[rows], order)),
                                 *splits.held_out_mmrec(ranked[1]))  # fmt: skip

    shuffled = np.random.default_rng(seed + 1).permutation(len(users))
    assert (labels_of(positions)[shuffled] == labels_of(shuffled)).all()


def test_global_time_boundaries_belong_to_the_later_split():
    labels = splits.label_by_time(np.array([1, 5, 6, 9, 10, 11]), 6, 10)
    assert labels.tolist() == [TRAIN, TRAIN, VALID, VALID, TEST, TEST]


def test_cold_ids_are_exact_shares_of_those_alive():
    keys = np.array([7, 1, 5, 3, 9, 0, 2, 8], np.uint64)
    alive = np.array([1, 1, 1, 1, 1, 0, 1, 1], bool)
    labels = splits.label_held_out_ids(keys, alive, 2 / 7, 1 / 7)
    # Smallest keys first among the living: id 1 tests, ids 6 and 3 validate; id 5 is not alive.
    assert labels.tolist() == [TRAIN, TEST, TRAIN, VALID, TRAIN, TRAIN, VALID, TRAIN]


def test_users_without_train():
    users = np.array([0, 0, 1, 1, 2], np.int32)
    labels = np.array([TRAIN, TEST, VALID, TEST, TRAIN], np.int8)
    assert splits.users_without_train(users, labels).tolist() == [False, False, True, True, False]


def test_no_rows_at_all():
    nothing = np.zeros(0, np.int32)
    ranks, sizes = splits.ranks_within_users(nothing, np.zeros(0, np.intp))
    assert splits.label_tail(ranks, sizes, *splits.held_out_mmrec(sizes)).tolist() == []
