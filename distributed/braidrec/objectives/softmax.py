"""The share of one logit among many."""

from functools import reduce

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def only(logits: Tensor, allowed: Tensor) -> Tensor:
    """`logits` with all that is not allowed far below any other, so that it takes no part in a softmax.

    Not at −∞: the logarithm of an empty sum has a gradient of NaN.
    """
    return logits.masked_fill(~allowed, torch.finfo(logits.dtype).min / 2)


def minus_log_share(positive: Tensor, *others: Tensor) -> Tensor:
    """`−log [exp(p) / (exp(p) + Σ_j exp(o_j))]` of every row, at least 0.

    Where no other logit takes part, the loss is 0, and so is its gradient.

    Args:
        positive: `[n]` logits.
        others: each `[n, m]`; see `only`.
    Returns:
        `[n]`.
    """
    total = reduce(torch.logaddexp, [torch.logsumexp(logits, dim=-1) for logits in others])
    return F.softplus(total - positive)
