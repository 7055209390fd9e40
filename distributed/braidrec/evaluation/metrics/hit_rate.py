"""HitRate@k."""

import numpy as np

from braidrec.evaluation.metrics.base import CutoffMetric, Floats, RankedUsers


class HitRate(CutoffMetric):
    """hit_rate@k(u) = 1 if any of the first k is a hit, else 0.

    Source: Deshpande and Karypis, "Item-based top-N recommendation algorithms", TOIS 2004.
    """

    name = "hit_rate"

    def values(self, ranked: RankedUsers) -> Floats:
        any_hit: Floats = np.any(ranked.hits[:, : self.k], axis=1).astype(np.float64)
        return any_hit
