"""De-duplication and the k-core's membership against dicts and loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidrec.data.buckets import in_core, kept_by_deduplication

ROW = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.sampled_from([1.0, 2.0]), st.integers(0, 2))


@settings(deadline=None, max_examples=150)
@given(rows=st.lists(ROW, min_size=1, max_size=40), which=st.sampled_from(["first", "last"]), timed=st.booleans())
def test_deduplication_keeps_the_first_or_last_by_time_then_position(rows, which, timed):
    columns = {
        "user": np.array([row[0] for row in rows], np.int32),
        "item": np.array([row[1] for row in rows], np.int32),
        "rating": np.array([row[3] for row in rows], np.float32),
        "label": np.array([row[4] for row in rows], np.int8),
        "position": np.arange(len(rows)),
    }
    if timed:
        columns["timestamp"] = np.array([row[2] for row in rows])
    order = np.random.default_rng(len(rows)).permutation(len(rows))
    columns = {name: values[order] for name, values in columns.items()}

    kept, contradictory, between_splits = kept_by_deduplication(columns, which)

    choose = min if which == "first" else max
    pairs = {}
    for position, row in enumerate(rows):
        pairs.setdefault(row[:2], []).append((row[2] if timed else 0, position))
    assert sorted(columns["position"][kept]) == sorted(choose(found)[1] for found in pairs.values())
    assert contradictory == sum(len({rows[p][3] for _, p in found}) > 1 for found in pairs.values())
    assert between_splits == sum(len({rows[p][4] for _, p in found}) > 1 for found in pairs.values())


def test_without_deduplication_all_rows_stay():
    columns = {"user": np.zeros(3, np.int32), "item": np.zeros(3, np.int32), "position": np.arange(3)}
    kept, contradictory, _ = kept_by_deduplication(columns, "none")
    assert kept.all()
    assert contradictory == 0


@pytest.mark.parametrize("least", [1, 2, 3])
def test_core_membership_counts_only_rows_with_kept_items(least):
    users = np.array([7, 7, 7, 9, 9, 8], np.int32)
    items = np.array([0, 1, 2, 0, 2, 1], np.int32)
    alive = np.array([True, True, False])
    # Rows with a kept item: user 7 has two, user 9 one, user 8 one.
    expected = {
        1: [True, True, False, True, False, True],
        2: [True, True, False, False, False, False],
        3: [False] * 6,
    }
    assert in_core(users, items, alive, least).tolist() == expected[least]


def test_core_membership_of_nothing():
    nothing = np.zeros(0, np.int32)
    assert in_core(nothing, nothing, np.ones(1, bool), 2).tolist() == []
