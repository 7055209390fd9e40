"""Recall@k."""

from braidrec.evaluation.metrics.base import CutoffMetric, Floats, RankedUsers


class Recall(CutoffMetric):
    """recall@k(u) = #hits among the first k / |held-out items of u|.

    The definition of LightGCN's and MMRec's published numbers (He et al., SIGIR 2020). The denominator is not cut at
    k, so a user with more than k held-out items cannot reach 1.
    """

    name = "recall"

    def values(self, ranked: RankedUsers) -> Floats:
        shares: Floats = ranked.hits[:, : self.k].sum(axis=1) / ranked.num_held_out
        return shares
