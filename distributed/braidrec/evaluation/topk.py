"""Exact top-k of a tile of scores, with ties broken by the lower item index.

Every (score, item) pair becomes one int64 that orders as the pair does: the float's bits, made monotone, in the upper
half and the negated item index in the lower. No two keys are equal, so a plain top-k of keys is exact and
deterministic whatever the ties, the tile or the device, and best lists of several item ranges merge by another top-k.

Two stages keep it cheap. A row is cut into chunks of neighbouring items; only the k best chunks, ordered by (maximum
descending, chunk index ascending), can hold an item of the top k: each of k chunks that come before chunk c holds an
item that comes before all items of c, because its maximum is higher, or equal and at a lower index.
"""

import math

import torch
from torch import Tensor

_FEWEST, _MOST = 8, 1024
_CANDIDATES_AT_ONCE = 1 << 22
"""Candidates (32 MiB of keys) that the second stage holds at a time; more rows are worked off in turns."""
_LOW_BITS = 0xFFFFFFFF


def top_k(scores: Tensor, k: int, *, chunk_size: int | None = None) -> tuple[Tensor, Tensor]:
    """The k best items of each row, best first.

    Args:
        scores: float32 [rows, num_items]; −inf marks what must not be returned. May be strided.
        k: how many; more than there are candidates is allowed.
        chunk_size: items per chunk, None for the size that makes both stages about equally long.

    Returns:
        (items int64 [rows, k], scores float32 [rows, k]); where candidates run out, −1 and −inf.

    Raises:
        ValueError: a score is NaN, k is not positive, or scores are not float32.
    """
    return decode(top_k_keys(scores, k, chunk_size=chunk_size))


def top_k_keys(scores: Tensor, k: int, *, first_item: int = 0, chunk_size: int | None = None) -> Tensor:
    """As `top_k`, as keys, int64 [rows, k] descending. Column j of `scores` is item first_item + j."""
    if k < 1 or scores.dtype != torch.float32:
        raise ValueError(f"wanted float32 scores and k ≥ 1, got {scores.dtype} and k={k}")
    rows, num_items = scores.shape
    chunk = chunk_size or _chunk_size(num_items, k)
    rows_at_once = max(1, _CANDIDATES_AT_ONCE // (min(k, math.ceil(num_items / chunk)) * chunk or 1))
    parts = [
        _best(scores[start : start + rows_at_once], k, first_item, chunk) for start in range(0, rows, rows_at_once)
    ]
    return torch.cat(parts) if parts else scores.new_empty((0, k), dtype=torch.int64)


def merge_keys(keys: Tensor, more: Tensor) -> Tensor:
    """The best k of two lists of keys [rows, k] over different items."""
    return torch.cat([keys, more], dim=1).topk(keys.shape[1], dim=1).values


def decode(keys: Tensor) -> tuple[Tensor, Tensor]:
    """(items int64, scores float32) of keys; items are −1 where the score is −inf."""
    items = (-keys) & _LOW_BITS
    scores = _monotone(((keys + items) >> 32).to(torch.int32)).view(torch.float32)
    return torch.where(scores == -math.inf, -1, items), scores


def _best(scores: Tensor, k: int, first_item: int, chunk: int) -> Tensor:
    num_items = scores.shape[1]
    maxima = _chunk_maxima(scores, chunk)
    if bool(maxima.isnan().any()):
        raise ValueError("a score is NaN: it has no place in an order")
    device = scores.device
    if maxima.shape[1] > k:
        chunks = _encode(maxima, torch.arange(maxima.shape[1], device=device)).topk(k, dim=1, sorted=False).indices
        columns = (chunks[:, :, None] * chunk + torch.arange(chunk, device=device)).flatten(1)
        # The last chunk may be short: what lies beyond the row is read from its last item and then taken out.
        candidates = scores.gather(1, columns.clamp(max=num_items - 1)).masked_fill_(columns >= num_items, -math.inf)
    else:
        columns, candidates = torch.arange(num_items, device=device), scores
    keys = _encode(candidates, columns + first_item)
    best = keys.topk(min(k, keys.shape[1]), dim=1).values
    # −inf of the lowest possible order: whatever is merged with it comes first.
    absent = _encode(scores.new_full((1, 1), -math.inf), torch.tensor([_LOW_BITS >> 1], device=device))
    return torch.cat([best, absent.expand(len(best), k - best.shape[1])], dim=1)


def _chunk_maxima(scores: Tensor, chunk: int) -> Tensor:
    whole = scores.shape[1] // chunk * chunk
    maxima = scores[:, :whole].view(len(scores), whole // chunk, chunk).amax(dim=2)
    if whole == scores.shape[1]:
        return maxima
    return torch.cat([maxima, scores[:, whole:].amax(dim=1, keepdim=True)], dim=1)


def _chunk_size(num_items: int, k: int) -> int:
    """The power of two near √(num_items / k): the first stage then looks at as many numbers as the second."""
    ideal = math.sqrt(max(num_items, 1) / k)
    return min(max(1 << round(math.log2(ideal)) if ideal > 1 else 1, _FEWEST), _MOST)


def _encode(scores: Tensor, indices: Tensor) -> Tensor:
    # Adding zero turns −0.0 into +0.0: equal scores must have equal bits.
    return torch.add(-indices, _monotone((scores + 0.0).view(torch.int32)), alpha=1 << 32)


def _monotone(bits: Tensor) -> Tensor:
    """A float32's bits ↔ an int32 that orders as the float does: negative ones have their 31 low bits flipped."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
