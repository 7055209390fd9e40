"""Recommendation by neighbourhoods of items, without training."""

from copy import copy
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from braidrec.evaluation.held_out import UserItems
from braidrec.graph.knn import Neighbours


class ItemNeighbourRanker:
    """`r̂_ui = Σ_{j ∈ I_u ∩ N_k(i)} s_ij`: how similar an item is to those items of the user that are among its nearest.

    Item-based collaborative filtering (Sarwar et al., WWW 2001) with neighbours by common users
    (`graph.co_interaction.co_interaction_neighbours`), content-based recommendation with neighbours by features
    (`graph.knn.content_neighbours`). Both are baselines that trained models have to beat (Ferrari Dacrema, Cremonesi &
    Jannach, RecSys 2019). An item without a neighbour in common with the user has a score of 0.

    A tile of users × items is a product of sparse matrices; the similarities are never there as items × items.

    Args:
        histories: the users' train items.
        neighbours: of all items, most similar first.
        k: how many of them count; None: all that are given.
    Raises:
        ValueError: neighbours of another number of items, or fewer than k of them.
    """

    def __init__(self, histories: UserItems, neighbours: Neighbours, k: int | None = None) -> None:
        indices, similarity = neighbours
        if len(indices) != histories.num_items:
            raise ValueError(f"neighbours are given for {len(indices)} items, the histories have {histories.num_items}")
        k = indices.shape[1] if k is None else k
        if not 1 <= k <= indices.shape[1]:
            raise ValueError(f"k={k} must be from 1 to {indices.shape[1]}, as many as there are neighbours")
        found = indices[:, :k] >= 0
        items, _ = np.nonzero(found)
        size = histories.num_items
        # Row j holds the items that have j as a neighbour.
        self._similarity = scipy.sparse.csr_matrix(
            (similarity[:, :k][found].astype(np.float32), (indices[:, :k][found], items)), shape=(size, size)
        )
        self._histories = _matrix(histories)

    def with_histories(self, histories: UserItems) -> "ItemNeighbourRanker":
        """The same neighbours for other users."""
        other = copy(self)
        other._histories = _matrix(histories)
        return other

    @property
    def num_users(self) -> int:
        return int(self._histories.shape[0])

    @property
    def num_items(self) -> int:
        return int(self._histories.shape[1])

    def score(self, users: Tensor) -> Tensor:
        """float32 `[len(users), num_items]`, on the CPU."""
        return torch.from_numpy((self._histories[users.cpu().numpy()] @ self._similarity).toarray())


def _matrix(histories: UserItems) -> Any:
    ones = np.ones(len(histories.items), dtype=np.float32)
    shape = (len(histories.indptr) - 1, histories.num_items)
    return scipy.sparse.csr_matrix((ones, histories.items, histories.indptr), shape=shape)
