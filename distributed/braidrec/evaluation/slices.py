"""Metrics of a part of the users, or of a part of the held-out items.

A slice sorts users, or (user, item) pairs, into named groups. A slice by another key (presence of modalities, country,
age of an item) is one more function that returns a `UserSlice` or a `PairSlice`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braidrec.evaluation.exact_sum import exact_sums, mean
from braidrec.evaluation.metrics import RankedUsers, UserMetric
from braidrec.evaluation.metrics.recall import Recall

MAX_PATTERNS = 16
"""Most groups of items by their modalities."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class UserSlice:
    """Every metric that is an average over users, over the users of each group."""

    name: str
    groups: tuple[str, ...]
    group_of: Callable[[Ints], Ints]
    """users [n] → index into `groups` [n], −1 for a user in none."""

    def sums(self, ranked: RankedUsers, metrics: Sequence[UserMetric]) -> dict[str, Floats]:
        """What these users add to the state; keys are the metrics' and "num_users"."""
        groups, count = self.group_of(ranked.users), len(self.groups)
        sums = {metric.key: exact_sums(metric.values(ranked), groups, count) for metric in metrics}
        return {"num_users": np.bincount(groups[groups >= 0], minlength=count).astype(np.float64)} | sums


@dataclass(frozen=True, kw_only=True, eq=False)
class PairSlice:
    """Recall of the held-out items of each group, the recommended lists being the same.

    recall@k(u, g) = #hits of group g among the first k / |held-out items of u in group g|, averaged over the users who
    have a held-out item in g.
    """

    name: str
    groups: tuple[str, ...]
    group_of: Callable[[Ints, Ints], Ints]
    """(users [n], items [n]) → index into `groups` [n], −1 for a pair in none."""

    def sums(self, ranked: RankedUsers, metrics: Sequence[UserMetric]) -> dict[str, Floats]:
        """What these users add to the state: "num_users", "num_held_out" and recall at the metrics' cut-offs."""
        held_out = self._count(ranked, ranked.held_out_rows, ranked.held_out_items)
        sums = {"num_users": (held_out > 0).sum(axis=0).astype(np.float64)}
        sums["num_held_out"] = held_out.sum(axis=0).astype(np.float64)
        rows, places = np.nonzero(ranked.hits)
        groups = np.tile(np.arange(len(self.groups)), len(ranked.users))
        for metric in metrics:
            if not isinstance(metric, Recall):
                continue
            within = places < metric.k
            hits = self._count(ranked, rows[within], ranked.items[rows[within], places[within]])
            recall = np.divide(hits, held_out, out=np.full(hits.shape, np.nan), where=held_out > 0)
            sums[metric.key] = exact_sums(recall.ravel(), groups, len(self.groups))
        return sums

    def _count(self, ranked: RankedUsers, rows: Ints, items: Ints) -> Ints:
        """[n, num_groups] pairs per user and group."""
        groups, count = self.group_of(ranked.users[rows], items), len(self.groups)
        cells = (rows * count + groups)[groups >= 0]
        return np.bincount(cells, minlength=len(ranked.users) * count).reshape(-1, count)


Slice = UserSlice | PairSlice


def slice_result(part: Slice, sums: Mapping[str, Floats]) -> dict[str, dict[str, float]]:
    """{group: {"num_users": …, "recall@20": …}}; a group without users has its counts only."""
    results: dict[str, dict[str, float]] = {}
    for index, group in enumerate(part.groups):
        counts = {key: float(value[index]) for key, value in sums.items() if value.ndim == 1}
        means = {key: float(mean(value[index])) for key, value in sums.items() if value.ndim == 2}
        results[group] = counts | {key: value for key, value in means.items() if not np.isnan(value)}
    return results


def user_activity(train_user_degree: Ints, num_groups: int = 4) -> UserSlice:
    """Users by their number of train interactions, in `num_groups` quantile groups of the users who have any.

    A group is named by its range, such as "10-21". Users of equal degree are in one group, so that groups may be
    unequal or fewer; users without train interactions are the group "0".
    """
    degree = np.asarray(train_user_degree, dtype=np.int64)
    active = degree[degree > 0]
    shares = np.arange(1, num_groups + 1) / num_groups
    tops = np.unique(np.quantile(active, shares, method="inverted_cdf")) if len(active) else active
    tops = np.concatenate([np.zeros(1, dtype=np.int64), tops]) if (degree == 0).any() else tops
    group = np.searchsorted(tops, degree)
    names = []
    for index, top in enumerate(tops):
        bottom = degree[group == index].min()
        names.append(str(int(top)) if bottom == top else f"{bottom}-{int(top)}")
    return UserSlice(name="user_activity", groups=tuple(names), group_of=lambda users: group[users])


def item_popularity(train_item_degree: Ints, shares: tuple[float, float] = (1 / 3, 2 / 3)) -> PairSlice:
    """Held-out items by the share of train interactions that goes to more popular items.

    "head": below the first share, so the most popular items, that take about the first third of all interactions;
    "middle": below the second; "tail": the rest. Items of equal degree are in one group; items without train
    interactions are in none (see `item_warmth`).
    """
    degree = np.asarray(train_item_degree, dtype=np.int64)
    _, level = np.unique(degree, return_inverse=True)
    taken = np.bincount(level, weights=degree)
    above = (taken.sum() - np.cumsum(taken)) / max(taken.sum(), 1.0)
    group = np.where(degree > 0, np.searchsorted(np.asarray(shares), above, side="right")[level], -1)
    groups = ("head", "middle", "tail")
    return PairSlice(name="item_popularity", groups=groups, group_of=lambda _, items: group[items])


def item_warmth(train_item_degree: Ints) -> PairSlice:
    """Held-out items that train shows ("warm") and that it never does ("cold")."""
    cold = (np.asarray(train_item_degree) == 0).astype(np.int64)
    return PairSlice(name="item_warmth", groups=("warm", "cold"), group_of=lambda _, items: cold[items])


def item_modalities(present: Mapping[str, NDArray[np.bool_]]) -> PairSlice:
    """Held-out items by the modalities that they have: "image+text", "text", …, "none".

    Groups come in falling order of their number of items in the catalogue. Beyond `MAX_PATTERNS` the rarest patterns
    are one group, "others".

    Args:
        present: by modality, `[num_items]`; at least one.
    """
    names = sorted(present)
    rows = np.packbits(np.stack([present[name] for name in names], axis=1), axis=1)
    patterns, group, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
    has = np.unpackbits(patterns, axis=1, count=len(names)).astype(bool)
    labels = ["+".join(name for name, there in zip(names, row, strict=True) if there) or "none" for row in has]
    order = np.argsort(-counts, kind="stable")
    kept = order if len(order) <= MAX_PATTERNS else order[: MAX_PATTERNS - 1]
    place = np.full(len(order), len(kept), dtype=np.int64)
    place[kept] = np.arange(len(kept))
    of_item = place[group.reshape(-1)]
    groups = tuple(labels[index] for index in kept) + (("others",) if len(kept) < len(order) else ())
    return PairSlice(name="item_modalities", groups=groups, group_of=lambda _, items: of_item[items])
