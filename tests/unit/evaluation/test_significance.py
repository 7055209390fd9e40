"""Paired statistics, against SciPy called directly, a permutation test and numbers by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from braidrec.evaluation.significance import (
    bootstrap_means,
    cohens_d,
    compare_pairs,
    holm,
    interval,
    paired_t,
    rank_biserial,
    seed_spread,
    signed_rank,
)


def recalls(users: int, shifts: tuple[float, ...], seed: int = 0) -> np.ndarray:
    """[users, candidates] in [0, 1]: users differ much, candidates by their shift and some noise."""
    generator = np.random.default_rng(seed)
    level = generator.beta(2, 4, size=(users, 1))
    return np.clip(level + np.array(shifts) + generator.normal(0, 0.1, size=(users, len(shifts))), 0, 1)


def test_p_values_are_scipys() -> None:
    values = recalls(300, (0.0, 0.01, 0.05))
    for pair in compare_pairs(values, means=bootstrap_means(values, resamples=10, seed=0)):
        first, second = values[:, pair.first], values[:, pair.second]
        assert pair.t_p == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-8)
        assert pair.wilcoxon_p == pytest.approx(stats.wilcoxon(first, second).pvalue, rel=1e-6)
        assert pair.difference == pytest.approx(first.mean() - second.mean(), abs=1e-15)
        assert (pair.better, pair.worse) == (np.sum(first > second), np.sum(first < second))


def test_the_t_test_agrees_with_a_permutation_test() -> None:
    """Swapping a user's two values at random must give a difference as large about as often as p says."""
    values = recalls(120, (0.0, 0.02), seed=2)
    (pair,) = compare_pairs(values, means=bootstrap_means(values, resamples=10, seed=0))
    differences = values[:, 0] - values[:, 1]
    signs = np.random.default_rng(1).choice([-1.0, 1.0], size=(40_000, 120))
    permuted = np.mean(np.abs(signs @ differences) >= abs(differences.sum()))
    assert 0.02 < permuted < 0.5  # neither certain nor nothing, so that agreement says something
    assert pair.t_p == pytest.approx(permuted, abs=0.012)


def test_wilcoxon_is_exact_for_few_users() -> None:
    """Over all 2⁶ signs of the ranks 1 … 6, of which user 2 alone is negative."""
    differences = np.array([0.3, -0.1, 0.5, 0.2, 0.4, 0.6])
    ranks = np.array([3, 1, 5, 2, 4, 6])
    seen = abs(ranks @ np.sign(differences))
    totals = [abs(ranks @ np.array(signs)) for signs in itertools.product((-1, 1), repeat=6)]
    assert signed_rank(differences) == pytest.approx(np.mean(np.array(totals) >= seen))
    assert rank_biserial(differences) == pytest.approx(19 / 21)


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Five equal candidates, ten pairs: after Holm, hardly any of 100 comparisons finds anything."""
    found = {"t": 0, "wilcoxon": 0, "uncorrected": 0}
    for seed in range(100):
        values = recalls(80, (0.0,) * 5, seed)
        pairs = compare_pairs(values, means=bootstrap_means(values, resamples=2, seed=0))
        found["t"] += any(pair.t_holm < 0.05 for pair in pairs)
        found["wilcoxon"] += any(pair.wilcoxon_holm < 0.05 for pair in pairs)
        found["uncorrected"] += any(pair.t_p < 0.05 for pair in pairs)
    assert found["t"] <= 10 and found["wilcoxon"] <= 10  # 5 expected at most
    assert found["uncorrected"] > 15  # what the correction is for


def test_holm_by_hand() -> None:
    """0.01 · 4, then 0.02 · 3, then 0.03 · 2 (no less than the one before), then 0.04 · 1 (the same)."""
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.5, 0.9, 0.001]) == pytest.approx([1.0, 1.0, 0.003])
    assert holm([0.2]) == pytest.approx([0.2])
    assert len(holm([])) == 0


def test_the_interval_is_scipys() -> None:
    values = recalls(200, (0.0, 0.03))
    (pair,) = compare_pairs(values, means=bootstrap_means(values, resamples=20_000, seed=5), confidence=0.9)
    wanted = stats.bootstrap(
        (values[:, 0] - values[:, 1],), np.mean, confidence_level=0.9, method="percentile", n_resamples=20_000, rng=7
    ).confidence_interval
    width = wanted.high - wanted.low
    assert pair.interval == pytest.approx((wanted.low, wanted.high), abs=0.03 * width)


def test_resamples_are_means_of_drawn_users_and_shared_by_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(7, 2))
    drawn = np.random.default_rng(11).integers(7, size=(5, 7))
    assert bootstrap_means(values, resamples=5, seed=11) == pytest.approx(values[drawn].mean(axis=1))
    monkeypatch.setattr("braidrec.evaluation.significance._CELLS_AT_A_TIME", 14)  # two resamples at a time
    assert bootstrap_means(values, resamples=5, seed=11) == pytest.approx(values[drawn].mean(axis=1))
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))


def test_effect_sizes_by_hand() -> None:
    differences = np.array([1.0, 2.0, 3.0, -2.0])
    assert cohens_d(differences) == pytest.approx(1.0 / math.sqrt(14 / 3))
    assert rank_biserial(differences) == pytest.approx((1 + 2.5 + 4 - 2.5) / 10)


def test_equal_candidates_and_a_constant_difference() -> None:
    level = np.random.default_rng(0).uniform(size=50)
    values = np.stack([level, (level * 3) / 3, level + 0.25], axis=1)
    pairs = compare_pairs(values, means=bootstrap_means(values, resamples=50, seed=0))
    assert (pairs[0].t_p, pairs[0].wilcoxon_p, pairs[0].cohens_d, pairs[0].rank_biserial) == (1, 1, 0, 0)
    assert (pairs[0].better, pairs[0].worse) == (0, 0)
    assert pairs[1].t_p == 0 and pairs[1].wilcoxon_p < 1e-8 and pairs[1].cohens_d == -math.inf
    assert pairs[1].interval == pytest.approx((-0.25, -0.25))
    assert paired_t(np.zeros(4)) == 1


def test_the_spread_between_seeds() -> None:
    assert seed_spread([1.0, 3.0], [0.0, 1.0, 2.0]) == pytest.approx(math.sqrt(2 + 1))
    assert seed_spread([1.0], [0.0, 1.0]) is None


@pytest.mark.parametrize("values", [np.zeros((1, 2)), np.zeros(5), np.array([[0.0, 1.0], [np.nan, 1.0]])])
def test_what_cannot_be_compared(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"at least two users|not finite"):
        compare_pairs(values, means=np.zeros((10, 2)))
