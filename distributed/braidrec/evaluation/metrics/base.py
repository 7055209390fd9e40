"""What a metric is: sums over users that may be added, and a number made from them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from braidrec.evaluation.exact_sum import exact_sums, mean

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class RankedUsers:
    """What is known of some users after ranking."""

    users: NDArray[np.int64]
    """[n]"""
    items: NDArray[np.int64]
    """[n, k_max] recommended items, best first; −1 where there are no more candidates. No metric has a k > k_max."""
    hits: NDArray[np.bool_]
    """[n, k_max] whether the recommended item is held out."""
    num_held_out: NDArray[np.int64]
    """[n], each at least 1."""
    held_out_rows: NDArray[np.int64]
    """[pairs] row of each held-out pair, ascending."""
    held_out_items: NDArray[np.int64]
    """[pairs] its item."""
    num_items: int
    """Size of the catalogue."""
    auc: Floats | None = None
    """[n], if asked for; NaN where undefined."""
    rating_errors: Floats | None = None
    """[pairs] predicted − true rating of the held-out pairs, if they have one."""


class Metric(ABC):
    """A definition without state of its own.

    `sums` of disjoint sets of users may be added (`+`, or an all-reduce in any order): `result` of the total is bit for
    bit that of all users at once.
    """

    name: ClassVar[str]
    scope: ClassVar[Literal["cutoff", "ranking", "rating"]]
    """cutoff: of the first k recommendations; ranking: of the whole order; rating: of predicted values."""
    higher_is_better: ClassVar[bool] = True

    @property
    @abstractmethod
    def key(self) -> str:
        """Name of the result, such as "recall@20"."""

    @property
    def state_key(self) -> str:
        """Name of the sums; metrics that share it share the sums."""
        return self.key

    @abstractmethod
    def sums(self, ranked: RankedUsers) -> Floats:
        """What these users add to the state."""

    @abstractmethod
    def result(self, sums: Floats, train_item_degree: NDArray[np.int64]) -> float:
        """The metric from the added-up state; NaN if nothing was counted."""


class UserMetric(Metric):
    """A value per user, averaged over users (macro average). Users whose value is NaN do not count."""

    @abstractmethod
    def values(self, ranked: RankedUsers) -> Floats:
        """[n]"""

    def sums(self, ranked: RankedUsers) -> Floats:
        totals: Floats = exact_sums(self.values(ranked))[0]
        return totals

    def result(self, sums: Floats, train_item_degree: NDArray[np.int64]) -> float:
        return float(mean(sums))


class CutoffMetric(UserMetric):
    """A value per user that depends on which of the first k recommendations are hits."""

    scope = "cutoff"

    def __init__(self, k: int) -> None:
        self.k = k

    @property
    def key(self) -> str:
        return f"{self.name}@{self.k}"


class ExposureMetric(Metric):
    """Depends on how often each item is among the first k recommendations of all users together."""

    scope = "cutoff"

    def __init__(self, k: int) -> None:
        self.k = k

    @property
    def key(self) -> str:
        return f"{self.name}@{self.k}"

    @property
    def state_key(self) -> str:
        return f"exposure@{self.k}"

    def sums(self, ranked: RankedUsers) -> Floats:
        """[num_items] number of users to whom an item is recommended."""
        shown = ranked.items[:, : self.k]
        return np.bincount(shown[shown >= 0], minlength=ranked.num_items).astype(np.float64)


class RatingMetric(Metric):
    """The mean of something over all held-out pairs that have a rating (micro average)."""

    scope = "rating"
    higher_is_better = False

    @property
    def key(self) -> str:
        return self.name

    @abstractmethod
    def terms(self, errors: Floats) -> Floats:
        """[pairs] what is averaged."""

    def sums(self, ranked: RankedUsers) -> Floats:
        assert ranked.rating_errors is not None, "rating metrics need held-out ratings"
        totals: Floats = exact_sums(self.terms(ranked.rating_errors))[0]
        return totals
