"""The share of one logit among many."""

import torch
from torch import Tensor


def minus_log_share(positive: Tensor, *others: Tensor) -> Tensor:
    """`−log [exp(p) / (exp(p) + Σ_j exp(o_j))]` of every row, at least 0.

    Args:
        positive: `[n]` finite logits.
        others: each `[n, m]`; −∞ takes no part. Without any that does the loss is 0, and so is its gradient.
    Returns:
        `[n]`.
    """
    # The positive is in the sum, so that a row whose others are all −∞ has a finite one.
    return torch.logsumexp(torch.cat([positive.unsqueeze(-1), *others], dim=-1), dim=-1) - positive
