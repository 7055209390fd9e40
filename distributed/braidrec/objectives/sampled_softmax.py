"""Softmax over the positive and sampled negatives."""

import math

import torch
from torch import Tensor

from braidrec.models.contract import Batch
from braidrec.objectives.arguments import above_zero
from braidrec.objectives.contract import LossFacts
from braidrec.objectives.scores import inner_products
from braidrec.objectives.softmax import minus_log_share


class SampledSoftmax(LossFacts):
    """`−log [exp(r̂_ui/τ) / (exp(r̂_ui/τ) + Σ_j exp(r̂_uj/τ − log(n q_j)))]` over a row's n negatives j.

    With q_j the probability with which an item is drawn, the sum estimates that over all items without bias, so that
    the loss stands for the softmax over the catalogue (Bengio & Senécal, IEEE TNN 19(4), 2008). A sampler that never
    draws a user's train items Q draws the others with `q_j / (1 − Σ_Q q)`; this factor, near 1, is left out. Without
    `log_q` the negatives count as they are: the loss of the (1 + n)-way choice, and BPR for n = 1 and τ = 1.

    Args:
        temperature: τ.
        log_q: `[num_items]` log probabilities of the sampler, −∞ for items that it never draws; None: no correction.
    Raises:
        ValueError: `temperature` is not above 0, or `log_q` does not hold the logarithms of a distribution.
    """

    def __init__(self, *, temperature: float, log_q: Tensor | None) -> None:
        self.temperature = above_zero("temperature", temperature)
        if log_q is not None:
            total = float(torch.logsumexp(log_q.double(), dim=0).exp()) if log_q.dim() == 1 else math.nan
            if not abs(total - 1.0) < 1e-3:
                raise ValueError(
                    f"log_q (shape {tuple(log_q.shape)}) must be one log probability an item: their exponentials sum "
                    f"to {total:g}, not to 1"
                )
        self._log_q = log_q

    def rows(self, users: Tensor, items: Tensor, negatives: Tensor | None, batch: Batch) -> Tensor:
        """Loss of every row: `[B]`, from `[B, D]` vectors and `[B, n, D]` vectors of the negatives."""
        assert negatives is not None and batch.negatives is not None
        positive, negative = inner_products(users, items, negatives)
        logits = negative / self.temperature
        if self._log_q is not None:
            self._log_q = self._log_q.to(logits.device)  # moves once
            logits = logits - (self._log_q[batch.negatives].to(logits.dtype) + math.log(negatives.shape[1]))
        return minus_log_share(positive / self.temperature, torch.logsumexp(logits, dim=-1))
