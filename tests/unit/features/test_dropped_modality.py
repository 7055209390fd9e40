"""Rows that lose a modality: how many, which, and always the same."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from braidrec.features.drop import drop

SHARES = st.floats(0, 1, allow_nan=False)


@given(present=st.lists(st.booleans(), max_size=60), rates=st.tuples(SHARES, SHARES), seed=st.integers(0, 2**31))
def test_the_share_asked_for_and_nested(present: list[bool], rates: tuple[float, float], seed: int) -> None:
    mask = np.array(present, np.bool_)
    smaller, larger = (drop(mask, rate, seed) for rate in sorted(rates))
    for lost, rate in ((smaller, min(rates)), (larger, max(rates))):
        assert lost.dtype == np.bool_ and lost.shape == mask.shape
        assert not (lost & ~mask).any()
        assert abs(int(lost.sum()) - rate * sum(present)) <= 0.5
    assert not (smaller & ~larger).any()
    np.testing.assert_array_equal(drop(mask, rates[0], seed), drop(mask.copy(), rates[0], seed))


def test_ends_of_the_scale() -> None:
    mask = np.arange(10) % 3 != 0
    assert not drop(mask, 0.0, 1).any()
    np.testing.assert_array_equal(drop(mask, 1.0, 1), mask)
    assert int(drop(mask, 0.25, 1).sum()) == 2  # half of a row counts as one: 1.5 of 6


def test_seeds_draw_independently() -> None:
    """Of 40,000 rows about a quarter are lost twice by two seeds at one half: five standard deviations are 500."""
    mask = np.ones(40_000, np.bool_)
    first, second = drop(mask, 0.5, 1), drop(mask, 0.5, 2)
    assert first.sum() == second.sum() == 20_000
    assert abs(int((first & second).sum()) - 10_000) < 500
    # No part of the table is favoured: standard deviation 50 of 10,000 draws.
    assert (abs(first.reshape(4, -1).sum(1) - 5_000) < 250).all()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_a_rate_is_a_share(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate=.*: must be from 0 to 1"):
        drop(np.ones(3, np.bool_), rate, 0)
