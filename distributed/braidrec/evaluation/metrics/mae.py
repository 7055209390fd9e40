"""MAE of predicted ratings."""

import numpy as np
from numpy.typing import NDArray

from braidrec.evaluation.exact_sum import mean
from braidrec.evaluation.metrics.base import Floats, RatingMetric


class MAE(RatingMetric):
    """mae = mean over held-out pairs of |score − rating|, in units of the rating.

    Source: Herlocker et al., TOIS 2004, section 5.
    """

    name = "mae"

    def terms(self, errors: Floats) -> Floats:
        return np.abs(errors)

    def result(self, sums: Floats, train_item_degree: NDArray[np.int64]) -> float:
        return float(mean(sums))
