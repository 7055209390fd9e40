"""Precision@k."""

from braidrec.evaluation.metrics.base import CutoffMetric, Floats, RankedUsers


class Precision(CutoffMetric):
    """precision@k(u) = #hits among the first k / k, also where fewer than k candidates exist.

    Source: Manning, Raghavan and Schütze, "Introduction to Information Retrieval", 2008, section 8.4.
    """

    name = "precision"

    def values(self, ranked: RankedUsers) -> Floats:
        shares: Floats = ranked.hits[:, : self.k].sum(axis=1) / self.k
        return shares
