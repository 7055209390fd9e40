"""What evaluation and recommendation ask of a trained model: scores of all items for some users."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor


class Ranker(Protocol):
    """A frozen model that scores every item for a user; a higher score is a better item.

    A model whose score is an inner product hands out a `VectorRanker` instead of an own class: it is scored in blocks
    over users *and* items. Any other ranker is asked for whole rows, a tile of users at a time.
    """

    @property
    def num_users(self) -> int: ...

    @property
    def num_items(self) -> int: ...

    def score(self, users: Tensor) -> Tensor:
        """float32 [tile, num_items] for int64 users [tile]. −inf takes an item out of a user's candidates; NaN is an
        error. The caller does not write into the returned tensor."""
        ...


class VectorRanker:
    """score(u, i) = ⟨user_vectors[u], item_vectors[i]⟩ + offset.

    Biases are further dimensions: a user's bias stands beside a 1 on the item side and the reverse. `offset` is a
    constant such as the mean rating; it moves every score alike and so never changes an order.

    Args:
        user_vectors: [num_users, dim], on the device on which to score.
        item_vectors: [num_items, dim], same device.
        offset: added to every score.
        rating_bounds: the lowest and the highest rating, if σ of a score says where between them a rating lies.

    Raises:
        ValueError: the two are not matrices of one width on one device.
    """

    def __init__(
        self,
        user_vectors: Tensor,
        item_vectors: Tensor,
        offset: float = 0.0,
        rating_bounds: tuple[float, float] | None = None,
    ) -> None:
        if user_vectors.ndim != 2 or item_vectors.ndim != 2 or user_vectors.shape[1] != item_vectors.shape[1]:
            raise ValueError(
                f"user_vectors {list(user_vectors.shape)} and item_vectors {list(item_vectors.shape)}: "
                "wanted [num_users, dim] and [num_items, dim] with the same dim"
            )
        if user_vectors.device != item_vectors.device:
            raise ValueError(
                f"user_vectors on {user_vectors.device} but item_vectors on {item_vectors.device}: move one of them"
            )
        self._user_vectors = user_vectors.detach().float()
        self._item_vectors = item_vectors.detach().float()
        self.offset = offset
        self.rating_bounds = rating_bounds

    @property
    def num_users(self) -> int:
        return self._user_vectors.shape[0]

    @property
    def num_items(self) -> int:
        return self._item_vectors.shape[0]

    @property
    def dim(self) -> int:
        return self._item_vectors.shape[1]

    @property
    def device(self) -> torch.device:
        return self._item_vectors.device

    def user_vectors(self, users: Tensor) -> Tensor:
        """float32 [len(users), dim]."""
        return self._user_vectors[users.to(self.device)]

    def item_vectors(self, items: Tensor | None = None) -> Tensor:
        """float32 [len(items), dim]; without `items` the vectors of all items, not copied."""
        return self._item_vectors if items is None else self._item_vectors[items.to(self.device)]

    def score(self, users: Tensor) -> Tensor:
        """float32 [len(users), num_items]."""
        return self.user_vectors(users) @ self._item_vectors.t() + self.offset


def predicted_ratings(ranker: Ranker, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a ranker's scores are as ratings: themselves, or `a + (b − a) σ(score)` between bounds a and b."""
    bounds = ranker.rating_bounds if isinstance(ranker, VectorRanker) else None
    if bounds is None:
        return scores
    low, high = bounds
    share: NDArray[np.float64] = expit(scores)
    return low + (high - low) * share


class PopularityRanker(VectorRanker):
    """score(u, i) = the item's train degree, the same for every user (float32: exact up to 2²⁴ interactions an item).

    The baseline that a personalised recommender has to beat.
    """

    def __init__(self, train_item_degree: NDArray[np.integer], num_users: int) -> None:
        degree = torch.from_numpy(np.asarray(train_item_degree, dtype=np.float32))
        super().__init__(torch.ones(1, 1).expand(num_users, 1), degree[:, None])
