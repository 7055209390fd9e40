"""The words of users: those of the items that they have in train, weighted by how few users share them."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfTransformer
from torch import Tensor

from braidrec.graph.histories import Histories, Ragged

USERS_AT_ONCE = 4096


class UserWords:
    """TF-IDF of users, made for as many as are asked for: nothing of users × words is kept.

    A user's counts are the sum of his items' counts; `tf · (1 + ln((1 + n) / (1 + df)))` with n users and df of them
    with the word, and rows of length one (scikit-learn's definition).

    Args:
        histories: the users' train items.
        counts: `[num_items, num_words]` how often a word occurs in an item's text.
        vocabulary: the words.
        idf: `[num_words]`, where it is known already; it takes a pass over all users.
    """

    def __init__(
        self,
        histories: Histories,
        counts: scipy.sparse.csr_matrix,
        vocabulary: Sequence[str],
        *,
        idf: NDArray[np.float64] | None = None,
    ) -> None:
        self.histories, self.counts, self.vocabulary = histories, counts, tuple(vocabulary)
        self._weighting = TfidfTransformer()
        self._weighting.idf_ = self._idf_of_users() if idf is None else idf

    @property
    def num_words(self) -> int:
        return len(self.vocabulary)

    @property
    def idf(self) -> NDArray[np.float64]:
        """`[num_words]`."""
        found: NDArray[np.float64] = self._weighting.idf_
        return found

    def rows(self, users: Tensor | None) -> Ragged:
        """The words of some users (None: of all in order) and their weights; nothing for one without words."""
        matrix = self._weighting.transform(self._counts(users)).tocsr()
        matrix.sort_indices()
        device = torch.device("cpu") if users is None else users.device
        return Ragged(
            columns=torch.from_numpy(matrix.indices.astype(np.int64)).to(device),
            weights=torch.from_numpy(matrix.data.astype(np.float32)).to(device),
            offsets=torch.from_numpy(matrix.indptr.astype(np.int64)).to(device),
        )

    def _counts(self, users: Tensor | None) -> scipy.sparse.csr_matrix:
        whole = self.histories.whole(users)
        shape = (whole.num_rows, self.counts.shape[0])
        taken = scipy.sparse.csr_matrix(
            (np.ones(len(whole.columns)), whole.columns.cpu().numpy(), whole.offsets.cpu().numpy()), shape=shape
        )
        return taken @ self.counts

    def _idf_of_users(self) -> NDArray[np.float64]:
        """From the users with a train item, and how many of them have each word."""
        frequency = np.zeros(len(self.vocabulary), np.int64)
        num_users = 0
        for start in range(0, self.histories.num_users, USERS_AT_ONCE):
            users = torch.arange(start, min(start + USERS_AT_ONCE, self.histories.num_users))
            frequency += np.bincount(self._counts(users).indices, minlength=len(frequency))
            num_users += int((self.histories.whole(users).offsets.diff() > 0).sum())
        found: NDArray[np.float64] = np.log((1 + num_users) / (1 + frequency)) + 1
        return found
