"""Ranking by a few vectors a user, of which an item takes a share each."""

import torch
from torch import Tensor

from braidrec.models.contract import Mixture


class MixtureRanker:
    """`score(u, i) = log Σ_k c_ik exp(⟨z_uk, h_i⟩ / τ)`.

    Args:
        user_vectors: `[num_users, ≥ K·d]` z, one after the other; further columns are not looked at.
        item_vectors: `[num_items, ≥ d + K]` h and log c, on the same device.
        mixture: K, d and τ.
        offset: added to every score.
    """

    def __init__(self, user_vectors: Tensor, item_vectors: Tensor, mixture: Mixture, offset: float = 0.0) -> None:
        size, count = mixture.dim, mixture.components
        self._factors = user_vectors[:, : count * size].detach().float().view(-1, count, size)
        self._items = item_vectors[:, :size].detach().float() / mixture.temperature
        self._log_shares = item_vectors[:, size : size + count].detach().float()
        self._offset = offset

    @property
    def num_users(self) -> int:
        return self._factors.shape[0]

    @property
    def num_items(self) -> int:
        return self._items.shape[0]

    def score(self, users: Tensor) -> Tensor:
        """float32 `[len(users), num_items]`."""
        factors = self._factors[users.to(self._factors.device)]
        total: Tensor | None = None
        for number in range(factors.shape[1]):
            of_one = factors[:, number] @ self._items.t() + self._log_shares[:, number]
            total = of_one if total is None else torch.logaddexp(total, of_one)
        assert total is not None
        return total + self._offset
