"""Gini@k of the recommendations over items."""

import numpy as np
from numpy.typing import NDArray

from braidrec.evaluation.metrics.base import ExposureMetric, Floats


class Gini(ExposureMetric):
    """gini@k = Σ_i (2i − n − 1) x_i / (n Σ_i x_i), with x_1 ≤ … ≤ x_n how often each of the n items is recommended.

    0: all items equally often; (n − 1)/n: always the same one. Items that are never recommended count. Lower is more
    equal. Source: Shani and Gunawardana, "Evaluating Recommendation Systems", Recommender Systems Handbook, 2011.
    """

    name = "gini"
    higher_is_better = False

    def result(self, sums: Floats, train_item_degree: NDArray[np.int64]) -> float:
        n, total = len(sums), sums.sum()
        if total == 0:
            return float("nan")
        weights = 2.0 * np.arange(1, n + 1) - n - 1
        return float((weights * np.sort(sums)).sum() / (n * total))
