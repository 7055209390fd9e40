"""Attention over strands."""

import torch
from torch import Tensor, nn

from braidrec.models.fusion.strands import Strands


class StrandAttention(nn.Module):
    """`α_m = softmax_m(qᵀ tanh(W h^m + b))` over the present strands of a row (as in Wang et al., HAN, WWW 2019, a row
    at a time).

    W, b and q are the same for all strands. The weights of a row that has no strand are all zero.

    Args:
        dim: d, width of every strand.
        hidden: width of q; None: d.
    Raises:
        ValueError: a width below 1.
    """

    def __init__(self, dim: int, *, hidden: int | None = None) -> None:
        super().__init__()
        hidden = dim if hidden is None else hidden
        for name, value in (("dim", dim), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        self.inner = nn.Linear(dim, hidden)
        self.query = nn.Linear(hidden, 1, bias=False)
        nn.init.xavier_uniform_(self.inner.weight)
        nn.init.zeros_(self.inner.bias)
        nn.init.xavier_uniform_(self.query.weight)

    def forward(self, strands: Strands) -> Tensor:
        """`[n, M]`: what each strand counts."""
        logits = torch.cat([self.query(self.inner(rows).tanh()) for rows in strands.rows.values()], dim=-1)
        if strands.present is None:
            return logits.softmax(-1)
        # A number so low rather than −∞: a row without any strand is uniform then, and not NaN, before it is masked.
        lowest = torch.finfo(logits.dtype).min
        weights: Tensor = logits.masked_fill(~strands.present, lowest).softmax(-1)
        return weights.masked_fill(~strands.present, 0.0)
