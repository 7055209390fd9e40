"""Is one recommender better than another, or is it chance? Paired statistics over users.

The unit is the user: a user's value is the mean over the seeds of a candidate, so that runs of one candidate do not
count as independent observations. All candidates are compared with each other, and p-values are corrected for that.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

DECIMALS = 12
"""Differences are rounded to these. Means over seeds differ in their last bits where they are equal, and the Wilcoxon
test, which sees ranks only, would take such a difference for one like any other."""
_CELLS_AT_A_TIME = 4_000_000


@dataclass(frozen=True, kw_only=True)
class PairStatistics:
    """Candidate `first` against candidate `second`, both by their columns.

    Attributes:
        difference: mean over the users of first − second.
        interval: bootstrap interval of it.
        t_p, wilcoxon_p: two-sided p-values of the paired t and the Wilcoxon signed-rank test.
        t_holm, wilcoxon_holm: the same after Holm's correction over all pairs.
        cohens_d: d_z, the mean difference in units of the standard deviation of the users' differences.
        rank_biserial: in [−1, 1]: by how much ranks in favour of `first` outweigh those in favour of `second`.
        better, worse: users for whom `first` is better, and worse.
    """

    first: int
    second: int
    difference: float
    interval: tuple[float, float]
    t_p: float
    wilcoxon_p: float
    t_holm: float
    wilcoxon_holm: float
    cohens_d: float
    rank_biserial: float
    better: int
    worse: int


def compare_pairs(
    values: Floats, *, means: Floats, confidence: float = 0.95, higher_is_better: bool = True
) -> list[PairStatistics]:
    """All pairs of candidates, in the order of `itertools.combinations`.

    Args:
        values: [users, candidates], each the mean over the candidate's seeds; finite.
        means: `bootstrap_means(values, …)`.
        confidence: of the bootstrap interval.
        higher_is_better: of the metric.
    Raises:
        ValueError: fewer than two users, or a value that is not finite.
    """
    if values.ndim != 2 or len(values) < 2:
        raise ValueError(f"values {values.shape}: wanted [users, candidates] with at least two users")
    if not np.isfinite(values).all():
        raise ValueError("a value is not finite: leave out users for whom the metric is undefined, in all candidates")
    pairs = list(itertools.combinations(range(values.shape[1]), 2))
    sign = 1 if higher_is_better else -1
    differences = [np.round(values[:, a] - values[:, b], DECIMALS) for a, b in pairs]
    t = [paired_t(each) for each in differences]
    wilcoxon = [signed_rank(each) for each in differences]
    t_holm, wilcoxon_holm = holm(t), holm(wilcoxon)
    return [
        PairStatistics(
            first=a,
            second=b,
            difference=float(values[:, a].mean() - values[:, b].mean()),
            interval=interval(means[:, a] - means[:, b], confidence),
            t_p=t[index],
            wilcoxon_p=wilcoxon[index],
            t_holm=float(t_holm[index]),
            wilcoxon_holm=float(wilcoxon_holm[index]),
            cohens_d=cohens_d(difference),
            rank_biserial=rank_biserial(difference),
            better=int((sign * difference > 0).sum()),
            worse=int((sign * difference < 0).sum()),
        )
        for index, ((a, b), difference) in enumerate(zip(pairs, differences, strict=True))
    ]


def paired_t(differences: Floats) -> float:
    """Two-sided p-value of the paired t test (Student, Biometrika 1908); 1 where nobody differs."""
    if not differences.any():
        return 1.0
    if (differences == differences[0]).all():
        return 0.0  # without any spread, t is infinite
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def signed_rank(differences: Floats) -> float:
    """Two-sided p-value of the signed-rank test (Wilcoxon, Biometrics Bulletin 1945); 1 where nobody differs.

    Users without a difference are left out, as Wilcoxon did; exact for up to 50 users without ties, else normal.
    """
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


def cohens_d(differences: Floats) -> float:
    """d_z = mean / standard deviation of the differences (Cohen, 1988); 0 where nobody differs, ±∞ without spread."""
    mean, deviation = float(differences.mean()), float(differences.std(ddof=1))
    if not differences.any():
        return 0.0
    return mean / deviation if deviation > 0 else float(np.copysign(np.inf, mean))


def rank_biserial(differences: Floats) -> float:
    """(W⁺ − W⁻) / (W⁺ + W⁻), matched pairs (Kerby, Comprehensive Psychology 2014); 0 where nobody differs."""
    kept = differences[differences != 0]
    if not len(kept):
        return 0.0
    ranks = stats.rankdata(np.abs(kept))
    return float(ranks @ np.sign(kept) / ranks.sum())


def holm(p_values: Sequence[float]) -> Floats:
    """Adjusted p-values (Holm, Scandinavian Journal of Statistics 1979), in the order given.

    The i-th smallest of m becomes max over j ≤ i of min(1, (m − j + 1) · p_(j)). Rejecting those below α keeps the
    probability of a single false rejection among all m below α, whatever the dependence between the tests.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    adjusted = np.empty_like(p)
    adjusted[order] = stepped
    return adjusted


def bootstrap_means(values: Floats, *, resamples: int, seed: int) -> Floats:
    """Means over users drawn with replacement (Efron, Annals of Statistics 1979).

    All columns see the same users, so that differences of columns are resamples of paired differences.

    Args:
        values: [users, columns].
    Returns:
        [resamples, columns].
    """
    generator = np.random.default_rng(seed)
    users, chunk = len(values), max(1, _CELLS_AT_A_TIME // len(values))
    parts = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = generator.integers(users, size=(rows, users)) + users * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        parts.append(counts @ values / users)
    return np.concatenate(parts)


def interval(samples: Floats, confidence: float) -> tuple[float, float]:
    """The percentile interval of bootstrap samples."""
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(samples, [tail, 1.0 - tail])
    return float(low), float(high)


def seed_spread(first: Sequence[float], second: Sequence[float]) -> float | None:
    """√(s₁² + s₂²), the standard deviation of the difference between one run of each, s being over seeds.

    None where a candidate has one seed: its spread is not known, and none is assumed.
    """
    if len(first) < 2 or len(second) < 2:
        return None
    return float(np.sqrt(np.var(first, ddof=1) + np.var(second, ddof=1)))
