"""NDCG@k with binary relevance."""

import numpy as np

from braidrec.evaluation.metrics.base import CutoffMetric, Floats, RankedUsers


class NDCG(CutoffMetric):
    """ndcg@k(u) = Σ_{r ≤ k} hit_r / log₂(r + 1)  ÷  Σ_{r ≤ min(|held-out|, k)} 1 / log₂(r + 1).

    Source: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002, with gains of 0 or 1
    and the ideal list cut at k as well.
    """

    name = "ndcg"

    def values(self, ranked: RankedUsers) -> Floats:
        hits = ranked.hits[:, : self.k]
        discounts = 1.0 / np.log2(np.arange(2, self.k + 2))
        ideal: Floats = np.cumsum(discounts)[np.minimum(ranked.num_held_out, self.k) - 1]
        gained: Floats = (hits * discounts).sum(axis=1)
        return gained / ideal
