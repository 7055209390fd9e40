"""Novelty@k of the recommendations."""

import numpy as np
from numpy.typing import NDArray

from braidrec.evaluation.metrics.base import ExposureMetric, Floats


class Novelty(ExposureMetric):
    """novelty@k = mean over all recommendations of −log₂ p_i in bits, p_i being the item's share of all train
    interactions.

    The self-information of Zhou et al., "Solving the apparent diversity–accuracy dilemma of recommender systems", PNAS
    2010, with an item's share of interactions as its probability. An item without train interactions counts as having
    one, since its surprise would be infinite.
    """

    name = "novelty"

    def result(self, sums: Floats, train_item_degree: NDArray[np.int64]) -> float:
        if not sums.any():
            return float("nan")
        bits = np.log2(max(int(train_item_degree.sum()), 1)) - np.log2(np.maximum(train_item_degree, 1))
        return float((sums * bits).sum() / sums.sum())
