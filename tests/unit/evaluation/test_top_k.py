import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braidrec.evaluation.topk import decode, merge_keys, top_k, top_k_keys


def expected(scores, k):
    """A stable argsort of the negated scores: ties by the lower index."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(scores, order, axis=1)
    items = np.where(values == -np.inf, -1, order)
    missing = ((0, 0), (0, k - items.shape[1]))
    return np.pad(items, missing, constant_values=-1), np.pad(values, missing, constant_values=-np.inf)


BESIDE = float(np.nextafter(np.float32(-1.5), np.float32(-2)))
few_values = st.sampled_from([-math.inf, -1.5, BESIDE, -0.0, 0.0, 1e-40, 0.25, 0.25, 3.0, 1e30, math.inf])
any_values = st.floats(width=32, allow_nan=False)


@st.composite
def problems(draw):
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 40))
    values = draw(st.sampled_from([few_values, any_values]))
    flat = draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
    scores = np.array(flat, dtype=np.float32).reshape(rows, columns)
    return scores, draw(st.integers(1, 45)), draw(st.sampled_from([None, 1, 2, 3, 7, 16, 64]))


@settings(max_examples=150, deadline=None)
@given(problems())
def test_equals_a_stable_argsort_for_every_chunk_size(problem):
    scores, k, chunk_size = problem
    items, values = top_k(torch.from_numpy(scores), k, chunk_size=chunk_size)
    wanted_items, wanted_values = expected(scores, k)
    np.testing.assert_array_equal(items.numpy(), wanted_items)
    np.testing.assert_array_equal(values.numpy(), wanted_values)


@pytest.mark.parametrize("distinct", [1, 3, 50, 10**6])
@pytest.mark.parametrize("num_items", [999, 4096, 5001])
def test_equals_a_stable_argsort_on_long_rows_with_ties(num_items, distinct):
    random = np.random.default_rng(0)
    scores = random.integers(-distinct, distinct, size=(20, num_items)).astype(np.float32)
    scores[random.random(scores.shape) < 0.3] = -np.inf
    for k in (1, 20, 300):
        items, values = top_k(torch.from_numpy(scores), k)
        wanted_items, wanted_values = expected(scores, k)
        np.testing.assert_array_equal(items.numpy(), wanted_items)
        np.testing.assert_array_equal(values.numpy(), wanted_values)


def test_rows_beyond_the_candidate_limit_are_worked_off_in_turns(monkeypatch):
    monkeypatch.setattr("braidrec.evaluation.topk._CANDIDATES_AT_ONCE", 700)
    scores = np.random.default_rng(1).integers(0, 9, size=(50, 333)).astype(np.float32)
    np.testing.assert_array_equal(top_k(torch.from_numpy(scores), 5)[0].numpy(), expected(scores, 5)[0])


def test_strided_scores():
    scores = torch.from_numpy(np.random.default_rng(2).integers(0, 9, size=(6, 200)).astype(np.float32))
    np.testing.assert_array_equal(top_k(scores[:, 10:150], 7)[0].numpy(), expected(scores[:, 10:150].numpy(), 7)[0])


@settings(max_examples=100, deadline=None)
@given(problems(), st.integers(1, 39))
def test_lists_of_two_item_ranges_merge_to_the_list_of_both(problem, cut):
    scores, k, chunk_size = problem
    cut = min(cut, scores.shape[1])
    tile = torch.from_numpy(scores)
    left = top_k_keys(tile[:, :cut], k, chunk_size=chunk_size)
    right = top_k_keys(tile[:, cut:], k, first_item=cut, chunk_size=chunk_size)
    for keys in (merge_keys(left, right), merge_keys(right, left)):
        np.testing.assert_array_equal(decode(keys)[0].numpy(), expected(scores, k)[0])


def test_nothing_but_masked_items_gives_an_empty_list():
    items, values = top_k(torch.full((2, 100), -math.inf), 3)
    assert items.tolist() == [[-1] * 3] * 2
    assert values.tolist() == [[-math.inf] * 3] * 2


def test_no_rows():
    assert top_k(torch.empty(0, 5), 2)[0].shape == (0, 2)


@pytest.mark.parametrize("column", [0, 50, 99])
def test_nan_is_refused(column):
    scores = torch.zeros(3, 100)
    scores[1, column] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        top_k(scores, 2)


def test_wrong_type_and_k_are_refused():
    with pytest.raises(ValueError, match="float64"):
        top_k(torch.zeros(2, 3, dtype=torch.float64), 1)
    with pytest.raises(ValueError, match="k=0"):
        top_k(torch.zeros(2, 3), 0)
