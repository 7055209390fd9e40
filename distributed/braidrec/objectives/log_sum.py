"""The sum over all candidates in a softmax between the rows of a batch, and its gradient, tile by tile.

Autograd would write the `[n, N]` logits, their mask, maximum, difference and exponentials to memory one after the
other, and read them again on the way back. Here a tile of rows goes through all of it while it is in the cache.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS_AT_ONCE = 128
"""A tile of so many rows times a few thousand candidates fits a core's second cache."""
Allowed = Callable[[slice], Tensor]
"""Rows of the queries → `[rows, N]` bool, which candidates count for them."""


def log_sum_exp_products(queries: Tensor, keys: Tensor, allowed: Allowed, offset: Tensor | None = None) -> Tensor:
    """`log Σ_j exp(⟨q_i, k_j⟩ + o_j)` over the candidates j that are allowed for i; far below any logit if none is.

    Memory: `[n, N]` once, kept for the gradient.

    Args:
        queries: `[n, d]`.
        keys: `[N, d]`.
        allowed: which candidates count; asked for tile by tile.
        offset: `[N]`, e.g. the logarithm of how often a candidate counts; without gradient. None: 0.
    Returns:
        `[n]`, differentiable in queries and keys. A row without candidates has no gradient.
    """
    out: Tensor = _LogSumExpProducts.apply(queries, keys, allowed, offset)
    return out


class _LogSumExpProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, allowed: Allowed, offset: Tensor | None) -> Tensor:
        # Not −∞: the difference of two of them is no number.
        floor = torch.finfo(queries.dtype).min / 2
        shares = queries.new_empty(len(queries), len(keys))
        total = queries.new_empty(len(queries))
        for rows in _tiles(len(queries)):
            tile = torch.mm(queries[rows], keys.T, out=shares[rows])
            if offset is not None:
                tile.add_(offset)
            tile.masked_fill_(~allowed(rows), floor)
            highest = tile.amax(dim=-1, keepdim=True)
            tile.sub_(highest).exp_()
            # A row without candidates has exponentials of 1, which are none of its shares.
            tile.mul_(highest > floor / 2)
            sums = tile.sum(dim=-1, keepdim=True)
            tile.div_(sums.clamp(min=1.0))
            total[rows] = (highest + sums.clamp(min=1.0).log()).squeeze(-1)
        ctx.save_for_backward(queries, keys, shares)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        queries, keys, shares = ctx.saved_tensors
        to_queries, to_keys = torch.empty_like(queries), torch.zeros_like(keys)
        for rows in _tiles(len(queries)):
            tile = shares[rows] * gradient[rows].unsqueeze(-1)
            torch.mm(tile, keys, out=to_queries[rows])
            to_keys.addmm_(tile.T, queries[rows])
        return to_queries, to_keys, None, None


def _tiles(num_rows: int) -> list[slice]:
    return [slice(start, start + ROWS_AT_ONCE) for start in range(0, num_rows, ROWS_AT_ONCE)]
