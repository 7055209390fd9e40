"""RMSE of predicted ratings."""

import math

import numpy as np
from numpy.typing import NDArray

from braidrec.evaluation.exact_sum import mean
from braidrec.evaluation.metrics.base import Floats, RatingMetric


class RMSE(RatingMetric):
    """rmse = √(mean over held-out pairs of (score − rating)²), in units of the rating.

    Source: Herlocker et al., TOIS 2004, section 5.
    """

    name = "rmse"

    def terms(self, errors: Floats) -> Floats:
        return np.square(errors)

    def result(self, sums: Floats, train_item_degree: NDArray[np.int64]) -> float:
        return math.sqrt(mean(sums))
