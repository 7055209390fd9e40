"""AUC per user."""

from braidrec.evaluation.metrics.base import Floats, RankedUsers, UserMetric


class AUC(UserMetric):
    """auc(u): the share of (held-out item, negative) pairs that the score orders rightly, ties counting ½.

    Negatives are all candidates that are neither masked nor held out; nothing is sampled. Averaged over the users who
    have a negative. Definition and source at `evaluation.pairwise.PairWins`.
    """

    name = "auc"
    scope = "ranking"

    @property
    def key(self) -> str:
        return self.name

    def values(self, ranked: RankedUsers) -> Floats:
        assert ranked.auc is not None, "the ranking was made without AUC"
        return ranked.auc
