"""MRR@k."""

import numpy as np

from braidrec.evaluation.metrics.base import CutoffMetric, Floats, RankedUsers


class MRR(CutoffMetric):
    """mrr@k(u) = 1 / rank of the first hit, 0 if none of the first k is a hit; averaged over users.

    Source: Voorhees, "The TREC-8 Question Answering Track Report", 1999.
    """

    name = "mrr"

    def values(self, ranked: RankedUsers) -> Floats:
        hits = ranked.hits[:, : self.k]
        return np.where(hits.any(axis=1), 1.0 / (hits.argmax(axis=1) + 1), 0.0)
