import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from braidrec.evaluation.exact_sum import WIDTH, exact_sums, mean

shares = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@settings(max_examples=100, deadline=None)
@given(shares, st.randoms(use_true_random=False), st.integers(1, 60))
def test_any_order_and_partition_gives_the_same_bits(values, random, cut):
    whole = exact_sums(np.array(values))
    shuffled = random.sample(values, len(values))
    parts = exact_sums(np.array(shuffled[:cut])) + exact_sums(np.array(shuffled[cut:]))
    np.testing.assert_array_equal(parts, whole)


@settings(max_examples=100, deadline=None)
@given(shares)
def test_mean_is_that_of_the_correctly_rounded_sum(values):
    assert math.isclose(
        mean(exact_sums(np.array(values)))[0], math.fsum(values) / len(values), rel_tol=1e-15, abs_tol=1e-21
    )


def test_terms_whose_plain_sum_depends_on_the_order():
    """The reason why the module exists."""
    values = np.array([0.1, 0.2, 0.3])
    assert (values[0] + values[1]) + values[2] != (values[2] + values[1]) + values[0]
    np.testing.assert_array_equal(exact_sums(values), exact_sums(values[::-1]))


def test_groups_and_undefined_values():
    values = np.array([0.5, 0.25, np.nan, 1.0, 0.1])
    sums = exact_sums(values, groups=np.array([1, 1, 1, -1, 0]), num_groups=3)
    assert sums.shape == (3, WIDTH)
    assert sums[:, 0].tolist() == [1, 2, 0]
    np.testing.assert_array_equal(mean(sums), [0.1, 0.375, np.nan])


def test_large_values_are_summed_to_rounding():
    values = np.array([1e12, 0.5, 3e20])
    assert mean(exact_sums(values))[0] == (1e12 + 0.5 + 3e20) / 3
