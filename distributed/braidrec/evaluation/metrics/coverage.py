"""Coverage@k of the catalogue."""

import numpy as np
from numpy.typing import NDArray

from braidrec.evaluation.metrics.base import ExposureMetric, Floats


class Coverage(ExposureMetric):
    """coverage@k = #items that are among the first k of at least one user / #items of the catalogue.

    Source: Herlocker et al., "Evaluating collaborative filtering recommender systems", TOIS 2004, catalogue coverage.
    """

    name = "coverage"

    def result(self, sums: Floats, train_item_degree: NDArray[np.int64]) -> float:
        return float(np.count_nonzero(sums) / len(sums)) if sums.any() else float("nan")
