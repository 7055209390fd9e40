"""Slow and obvious versions of ranking and of every metric, one user and one item at a time."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from braidrec.evaluation.held_out import UserItems


@dataclass
class Problem:
    """A small random evaluation problem with sets instead of arrays."""

    scores: np.ndarray
    mask: list[set[int]]
    held_out: list[set[int]]
    train_item_degree: np.ndarray

    @property
    def num_users(self):
        return self.scores.shape[0]

    @property
    def num_items(self):
        return self.scores.shape[1]

    @property
    def evaluated(self):
        return [user for user in range(self.num_users) if self.held_out[user]]

    @property
    def train_user_degree(self):
        return np.array([len(items) for items in self.mask])

    def ranked(self, user, k):
        candidates = [item for item in range(self.num_items) if item not in self.mask[user]]
        return sorted(candidates, key=lambda item: (-float(self.scores[user, item]), item))[:k]


def to_user_items(sets, num_items, values=None):
    users = np.array([user for user, items in enumerate(sets) for _ in items], dtype=np.int32)
    items = np.array([item for items in sets for item in sorted(items)], dtype=np.int32)
    return UserItems.from_edges(users, items, num_users=len(sets), num_items=num_items, values=values)


def random_problem(seed, num_users=60, num_items=130, distinct=None):
    """Held-out sets of 0 to 30 items, some users without train items; `distinct` scores only, so that many tie."""
    random = np.random.default_rng(seed)
    scores = random.normal(size=(num_users, num_items)).astype(np.float32)
    if distinct is not None:
        scores = random.integers(0, distinct, size=(num_users, num_items)).astype(np.float32)
    mask, held_out = [], []
    for user in range(num_users):
        order = random.permutation(num_items)
        num_masked = 0 if user % 7 == 0 else int(random.integers(1, 50))
        num_held_out = 0 if user % 5 == 1 else int(random.integers(1, 31))
        mask.append(set(order[:num_masked].tolist()))
        held_out.append(set(order[num_masked : num_masked + num_held_out].tolist()))
    degree = np.bincount([item for items in mask for item in items], minlength=num_items)
    degree[:3] = 0
    return Problem(scores=scores, mask=mask, held_out=held_out, train_item_degree=degree)


def user_values(problem, user, k):
    """The cut-off metrics of one user by their textbook loops."""
    relevant, ranked = problem.held_out[user], problem.ranked(user, k)
    hits, gained, precisions, first = 0, 0.0, 0.0, 0.0
    for rank, item in enumerate(ranked, start=1):
        if item in relevant:
            hits += 1
            gained += 1 / math.log2(rank + 1)
            precisions += hits / rank
            first = first or 1 / rank
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(len(relevant), k) + 1))
    return {
        "recall": hits / len(relevant),
        "precision": hits / k,
        "ndcg": gained / ideal,
        "map": precisions / min(len(relevant), k),
        "mrr": first,
        "hit_rate": float(hits > 0),
    }


def user_auc(problem, user):
    """Every pair compared."""
    negatives = [
        item
        for item in range(problem.num_items)
        if item not in problem.mask[user] and item not in problem.held_out[user]
    ]
    row = problem.scores[user]
    wins = [
        1.0 if row[good] > row[bad] else 0.5 if row[good] == row[bad] else 0.0
        for good in problem.held_out[user]
        for bad in negatives
    ]
    return sum(wins) / len(wins) if wins else math.nan


def exposure_values(problem, k):
    """coverage, gini (as the mean absolute difference) and novelty over the lists of all evaluated users."""
    shown = [item for user in problem.evaluated for item in problem.ranked(user, k)]
    counts = [shown.count(item) for item in range(problem.num_items)]
    mean = len(shown) / problem.num_items
    difference = sum(abs(a - b) for a in counts for b in counts) / problem.num_items**2
    total = problem.train_item_degree.sum()
    bits = [-math.log2(max(problem.train_item_degree[item], 1) / total) for item in shown]
    return {
        "coverage": len(set(shown)) / problem.num_items,
        "gini": difference / (2 * mean),
        "novelty": sum(bits) / len(bits),
    }


class MatrixRanker:
    """Any matrix of scores as a ranker without vectors."""

    def __init__(self, scores):
        self.scores = torch.as_tensor(scores)

    @property
    def num_users(self):
        return self.scores.shape[0]

    @property
    def num_items(self):
        return self.scores.shape[1]

    def score(self, users):
        return self.scores[users]
