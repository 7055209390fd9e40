"""MAP@k."""

import numpy as np

from braidrec.evaluation.metrics.base import CutoffMetric, Floats, RankedUsers


class MAP(CutoffMetric):
    """map@k(u) = 1 / min(|held-out|, k) · Σ_{r ≤ k} hit_r · precision@r(u); averaged over users.

    Average precision (Manning, Raghavan and Schütze 2008, section 8.4) of a list cut at k, normalised as NDCG is, so
    that a perfect list has 1.
    """

    name = "map"

    def values(self, ranked: RankedUsers) -> Floats:
        hits = ranked.hits[:, : self.k]
        precisions = np.cumsum(hits, axis=1) / np.arange(1, self.k + 1)
        gained: Floats = (hits * precisions).sum(axis=1)
        return gained / np.minimum(ranked.num_held_out, self.k)
