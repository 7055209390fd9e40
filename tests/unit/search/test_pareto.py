"""The front, against a comparison of all with all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from braidrec.search.pareto import pareto_front


def dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """(quality, cost, cost): at least as good in all, better in one."""
    no_worse = a[0] >= b[0] and all(x <= y for x, y in zip(a[1:], b[1:], strict=True))
    return no_worse and a != b


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=25))
def test_nobody_on_the_front_is_dominated_and_all_others_are(points: list[tuple[int, int, int]]) -> None:
    table = np.array(points, dtype=float).reshape(-1, 3)
    wanted = [not any(dominates(other, point) for other in points) for point in points]
    assert pareto_front(table[:, 0], table[:, 1:]).tolist() == wanted


def test_by_hand() -> None:
    """B is as cheap as A and worse; D is the dearest and not the best; C and its twin stay."""
    assert pareto_front([0.5, 0.4, 0.6, 0.6, 0.55], [1, 1, 2, 2, 3]).tolist() == [True, False, True, True, False]
    assert pareto_front([0.5, np.nan, 0.4], [2, 1, np.nan]).tolist() == [True, False, False]


def test_many_at_once() -> None:
    random = np.random.default_rng(0).uniform(size=(3_000, 2))
    front = pareto_front(random[:, 0], random[:, 1])
    chosen = random[front][np.argsort(random[front][:, 1])]
    assert (np.diff(chosen[:, 0]) > 0).all() and 3 < front.sum() < 60
    assert chosen[-1, 0] == pytest.approx(random[:, 0].max())
