"""Softmax over the items of the batch."""

import torch
from torch import Tensor

from braidrec.models.contract import Batch
from braidrec.objectives.arguments import above_zero
from braidrec.objectives.contract import LossFacts
from braidrec.objectives.cosine import unit_rows
from braidrec.objectives.gather import Gather, own_rows
from braidrec.objectives.log_sum import log_sum_exp_products
from braidrec.objectives.softmax import minus_log_share


class InBatchSoftmax(LossFacts):
    """`−log [exp(s_ui) / (exp(s_ui) + Σ_j exp(s_uj))]`, `s_ui = r̂_ui/τ − log p_i`, over the other rows' items j.

    Items come to be negatives in proportion to their popularity p, which the subtraction makes up for (Yi et al.,
    RecSys 2019). No negatives are drawn. Accidental hits are none: an item that the user has in any row of the batch,
    this row's own included, is not a negative of the user. An item that is in the batch many times is a negative as
    many times. Padding is never a negative; rows with weight 0 that are real are.

    Memory: `[B, N]` for N rows of all ranks.

    Args:
        temperature: τ.
        log_popularity: `[num_items]` log p up to a constant, −∞ for items without train interaction; None: no
            correction.
        cosine: s is the cosine of the vectors, not their inner product. Then rank by the cosine too.
        gather: brings the rows of all ranks, so that their items are negatives as well.
    Raises:
        ValueError: `temperature` is not above 0, or `log_popularity` holds NaN or +∞ or is not a vector.
    """

    needs_negatives = False

    def __init__(
        self, *, temperature: float, log_popularity: Tensor | None, cosine: bool, gather: Gather = own_rows
    ) -> None:
        self.temperature = above_zero("temperature", temperature)
        if log_popularity is not None:
            bad = torch.isnan(log_popularity) | torch.isposinf(log_popularity)
            if log_popularity.dim() != 1 or bool(bad.any()):
                raise ValueError(
                    f"log_popularity (shape {tuple(log_popularity.shape)}, {int(bad.sum())} × NaN or +inf) must be one "
                    "number an item, finite or -inf"
                )
        self._log_popularity = log_popularity
        self.ranks_by_cosine = cosine
        self.gather = gather

    def rows(self, users: Tensor, items: Tensor, negatives: Tensor | None, batch: Batch) -> Tensor:
        """Loss of every row: `[B]`, from `[B, D]` vectors."""
        if self.ranks_by_cosine:
            users, items = unit_rows(users), unit_rows(items)
        ids = torch.stack([batch.users, batch.items, (batch.real > 0).to(batch.users.dtype)], dim=-1)
        all_ids = self.gather(ids)
        users = users / self.temperature
        positive = (users * items).sum(-1)
        offset = None
        if self._log_popularity is not None:
            positive = positive - self._frequency(ids, positive.dtype)
            offset = -self._frequency(all_ids, positive.dtype)
        negative = _is_negative(batch.users, all_ids)
        others = log_sum_exp_products(users, self.gather(items), negative.__getitem__, offset)
        return minus_log_share(positive, others)

    def _frequency(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        """`[n]` log p of the rows' items, 0 for padding, whose item may have none."""
        assert self._log_popularity is not None
        self._log_popularity = self._log_popularity.to(ids.device)  # moves once
        _, items, real = ids.unbind(-1)
        return torch.where(real > 0, self._log_popularity[items].to(dtype), 0.0)


def _is_negative(users: Tensor, all_ids: Tensor) -> Tensor:
    """`[B, N]` whether the item of each row of all ranks is a negative of each of this rank's users.

    Args:
        users: `[B]`.
        all_ids: `[N, 3]` user, item, and 1 for rows that are no padding.
    """
    all_users, all_items, real = all_ids.unbind(-1)
    own, place = torch.unique(users, return_inverse=True)
    items, item = torch.unique(all_items, return_inverse=True)
    # Behind all users, so that every search ends inside; its line takes what no user of this rank has.
    own = torch.cat([own, own.new_full((1,), torch.iinfo(own.dtype).max)])
    line = torch.searchsorted(own, all_users.contiguous())
    known = (real > 0) & (own[line] == all_users)
    has = torch.zeros(len(own), len(items), dtype=torch.bool, device=users.device)
    has[torch.where(known, line, len(own) - 1), item] = True
    return (real > 0) & ~has.index_select(0, place).index_select(1, item)
