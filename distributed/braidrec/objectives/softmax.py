"""The share of one logit among many."""

from functools import reduce

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def minus_log_share(positive: Tensor, *others: Tensor) -> Tensor:
    """`−log [exp(p) / (exp(p) + Σ_j exp(o_j))]` of every row, at least 0.

    Args:
        positive: `[n]` logits.
        others: `[n]` each, `log Σ_j exp(o_j)` over some of them; where no other logit takes part, far below any logit:
            the loss is 0 there, and so is its gradient.
    Returns:
        `[n]`.
    """
    return F.softplus(reduce(torch.logaddexp, others) - positive)
