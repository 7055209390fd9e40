"""Negative items, drawn at random and never among the user's train items."""

import numpy as np
from numpy.typing import NDArray

from braidrec.data.errors import DatasetError
from braidrec.graph.relation import Relation

ROUNDS_OF_THE_POOL = 20
"""How often a row draws from shared negatives before it is taken for granted that they all are its user's."""


class NegativeSampler:
    """Draws items that a user has not interacted with in training.

    * uniform: every such item is equally likely.
    * popularity: in proportion to `degree^exponent` (Mikolov et al., NIPS 2013, for words); items without train
      interactions are never drawn.

    Rejection is exact: a drawn train item is drawn again, until none is left.

    Negatives may be shared: each `draw` first draws some items by the same law, and every row takes its negatives from
    these. A row's negatives are then distributed as without it, but those of a batch's rows are not independent, and
    far fewer items have to be looked at. A row whose user has nearly all of them draws its own.

    Args:
        interactions: the user–item relation of the train split.
        num_users: nodes below are users.
        shared: items that the rows of a draw share; None: each row draws for itself.
    Raises:
        DatasetError: a user has every item that can be drawn, so that no negative exists.
    """

    def __init__(
        self,
        interactions: Relation,
        num_users: int,
        *,
        kind: str = "uniform",
        exponent: float = 0.75,
        shared: int | None = None,
    ) -> None:
        self._shared = shared
        self._relation = interactions
        self._num_users = num_users
        self._num_items = interactions.num_nodes - num_users
        degree = np.diff(interactions.indptr)
        self._cumulative: NDArray[np.float64] | None = None
        drawable = self._num_items
        if kind == "popularity":
            popularity = np.where(degree[num_users:] > 0, degree[num_users:].astype(np.float64) ** exponent, 0.0)
            cumulative = np.cumsum(popularity)
            # By its own last entry, so that it ends at 1 exactly and no number below 1 falls behind the last share.
            self._cumulative = cumulative / cumulative[-1]
            drawable = int((degree[num_users:] > 0).sum())
        full = np.flatnonzero(degree[:num_users] >= drawable)
        if len(full):
            raise DatasetError(
                f"user {full[0]} (and {len(full) - 1} more) has all {drawable} items that can be drawn in the train "
                "split: there is no negative for it; remove such users when preparing the data"
            )

    def draw(self, users: NDArray[np.int64], per_positive: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """`[len(users), per_positive]` negative items."""
        repeated = np.repeat(users, per_positive)
        pool = None if self._shared is None else self._propose(self._shared, rng)
        items = self._propose(len(repeated), rng, pool)
        pending = np.flatnonzero(self.is_train_item(repeated, items))
        rounds = 0
        while len(pending):
            rounds += 1
            items[pending] = self._propose(len(pending), rng, pool if rounds < ROUNDS_OF_THE_POOL else None)
            pending = pending[self.is_train_item(repeated[pending], items[pending])]
        return items.reshape(len(users), per_positive)

    def log_probabilities(self) -> NDArray[np.float64]:
        """`[num_items]` log of the probability with which an item is proposed (before the user's own are rejected)."""
        if self._cumulative is None:
            return np.full(self._num_items, -np.log(self._num_items))
        with np.errstate(divide="ignore"):
            return np.log(np.diff(self._cumulative, prepend=0.0))

    def is_train_item(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each pair is a train interaction."""
        return self._relation.edge_ids(items + self._num_users, users) >= 0

    def _propose(self, size: int, rng: np.random.Generator, pool: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        if pool is not None:
            return pool[rng.integers(0, len(pool), size)]
        if self._cumulative is None:
            return rng.integers(0, self._num_items, size)
        return np.searchsorted(self._cumulative, rng.random(size), side="right").astype(np.int64)
