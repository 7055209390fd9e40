"""The most similar items of every item by content, never with anything of items × items in memory."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braidrec.graph.knn_faiss import faiss_candidates
from braidrec.graph.similarity import (
    ABSENT,
    RESOLUTION,
    Features,
    UnitRows,
    decode_keys,
    keys_of,
    pair_similarity,
    product_error,
    quantised,
)

Method = Literal["exact", "faiss", "auto"]

TILE_BYTES = 256 * 2**20
_SPARE = 8
"""Candidates beyond k. With fewer, more rows have to be looked at a second time; with more, each costs more."""
_CHUNK = 32
_SINGLE_CELL, _DOUBLE_CELL = 12, 56
"""Bytes for a pair of rows: fp32 product and its share of the candidates; fp64 product, similarity and key."""
_VALUE = 24
"""Bytes that a feature value takes while a row is brought to length one."""
_EXACT_OPERATIONS = {"cpu": 5e13, "cuda": 5e15}
"""Multiplications up to which `auto` stays exact: a quarter of an hour on two CPU cores, minutes on a GPU."""


class Neighbours(NamedTuple):
    """The neighbours of every item, best first.

    Attributes:
        indices: `[num_items, k]` int32, or int64 from 2³¹ items on; −1 where there are fewer than k.
        similarity: `[num_items, k]` fp32 cosine, 0 where there is no neighbour.
    """

    indices: NDArray[np.signedinteger]
    similarity: NDArray[np.float32]


def content_neighbours(
    features: Features,
    present: Tensor | NDArray[np.bool_],
    k: int,
    *,
    device: torch.device,
    method: Method = "exact",
    tile_bytes: int = TILE_BYTES,
) -> Neighbours:
    """The k items of highest cosine similarity, the item itself excluded.

    Rows that are absent, zero or not finite have no neighbours and are nobody's. Of equal similarities the lower index
    comes first. What is returned depends on features, `present` and k alone: not on `tile_bytes`, the number of
    threads, or the device (braidrec.graph.similarity says how a similarity is defined).

    Args:
        features: `[num_items, F]` fp16, bf16, fp32 or fp64, in memory or memory-mapped; cast tile by tile.
        present: `[num_items]` bool.
        k: neighbours an item.
        device: where the products are computed.
        method: "exact"; "faiss" searches candidates in an inverted file (braidrec.graph.knn_faiss) and may miss some;
            "auto" is exact as long as that takes minutes.
        tile_bytes: what the exact method may use beside its input, its output and 16 bytes an item. FAISS holds the
            whole table in fp32 besides.
    Raises:
        ValueError: a shape, type or number that does not fit.
        ModuleNotFoundError: FAISS is needed and not installed.
    """
    mask = _checked(features, present, k, method)
    rows = UnitRows(features, mask, device=device, tile_bytes=tile_bytes)
    if _uses_faiss(method, len(rows), rows.dim, device):
        keys = _search_with_faiss(rows, k)
    else:
        with _full_precision():
            keys = _search_exactly(rows, k)
    places, similarity = decode_keys(keys)
    dtype = np.int32 if len(mask) < 2**31 else np.int64
    indices = np.full((len(mask), k), -1, dtype=dtype)
    found = places.numpy()
    indices[rows.items] = np.where(found >= 0, rows.items[found], -1) if len(rows) else -1
    values = np.zeros((len(mask), k), dtype=np.float32)
    values[rows.items] = similarity.numpy()
    return Neighbours(indices, values)


def _checked(features: Features, present: Tensor | NDArray[np.bool_], k: int, method: str) -> NDArray[np.bool_]:
    """The presence bits as an array."""
    if features.ndim != 2 or features.shape[1] < 1:
        raise ValueError(f"features must be [num_items, F] with F ≥ 1, not {tuple(features.shape)}")
    floating = features.is_floating_point() if isinstance(features, Tensor) else features.dtype.kind == "f"
    if not floating:
        raise ValueError(f"features must be floating-point numbers, not {features.dtype}")
    mask = np.asarray(present.cpu() if isinstance(present, Tensor) else present)
    if mask.shape != (len(features),) or mask.dtype != np.bool_:
        raise ValueError(f"present must be [{len(features)}] bool, not {list(mask.shape)} {mask.dtype}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if method not in ("exact", "faiss", "auto"):
        raise ValueError(f"method must be 'exact', 'faiss' or 'auto', not {method!r}")
    return mask


def _uses_faiss(method: Method, num_rows: int, dim: int, device: torch.device) -> bool:
    limit = _EXACT_OPERATIONS["cuda" if device.type == "cuda" else "cpu"]
    return method == "faiss" or (method == "auto" and float(num_rows) ** 2 * dim > limit)


@contextmanager
def _full_precision() -> Iterator[None]:
    """fp32 products in fp32: a user's choice of TF32 or bf16 for training would break their error bound."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _search_exactly(rows: UnitRows, k: int) -> Tensor:
    """`[num_valid, k]` keys, on the CPU.

    fp32 products find k + 8 candidates a row, whose defined similarities are then computed. They are the answer if the
    k-th of them is above all that a row outside could have, given the error bound of the product. The few rows where it
    is not so (near-ties, many equal rows) are searched in fp64.
    """
    keys = torch.full((len(rows), k), ABSENT, dtype=torch.int64)
    count = k + _SPARE
    side = _tile_side(rows, _SINGLE_CELL)
    unsure = []
    for start in range(0, len(rows), side):
        places = np.arange(start, min(start + side, len(rows)))
        candidates, lowest = _candidates(rows, start, side, count)
        keys[places] = _rescored(rows, places, candidates.cpu().numpy(), k)
        # What the k-th similarity must exceed: the highest value that rounds to what an outsider can have.
        outside = (lowest.double().cpu() + product_error(rows.dim, torch.float32)) * RESOLUTION + 0.5
        last = keys[places, k - 1] >> 31
        unsure.append(places[(outside >= last).numpy()])
    for block in _blocks(
        np.concatenate(unsure) if unsure else np.empty(0, dtype=np.int64), _tile_side(rows, _DOUBLE_CELL)
    ):
        keys[block] = _search_in_double(rows, block, k)
    return keys


def _candidates(rows: UnitRows, start: int, side: int, count: int) -> tuple[Tensor, Tensor]:
    """For the rows from `start` on: places `[rows, count]` of the highest fp32 products, and the lowest of these, which
    no other product exceeds: −inf if all rows are candidates."""
    mine = rows.tile(start, start + side)
    values = mine.new_full((len(mine), count), -math.inf)
    places = torch.full((len(mine), count), -1, device=rows.device)
    for first in range(0, len(rows), side):
        tile = mine @ rows.tile(first, first + side).T
        if first == start:
            tile.fill_diagonal_(-math.inf)
        best, where = _largest(tile, count)
        values, order = torch.cat([values, best], dim=1).topk(count, dim=1, sorted=False)
        places = torch.cat([places, where + first], dim=1).gather(1, order)
    return places.masked_fill_(values == -math.inf, -1), values.amin(dim=1)


def _largest(tile: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The highest values of each row, in no order, and their columns.

    A row is cut into chunks. A value outside the `count` chunks with the highest maxima is not above any of those
    maxima, so it can be left out.
    """
    num_rows, width = tile.shape
    if width % _CHUNK or width <= 4 * _CHUNK * count:
        best = tile.topk(min(count, width), dim=1, sorted=False)
        return best.values, best.indices
    maxima = tile.view(num_rows, width // _CHUNK, _CHUNK).amax(dim=2)
    chunks = maxima.topk(count, dim=1, sorted=False).indices
    columns = (chunks.unsqueeze(2) * _CHUNK + torch.arange(_CHUNK, device=tile.device)).flatten(1)
    best = tile.gather(1, columns).topk(count, dim=1, sorted=False)
    return best.values, columns.gather(1, best.indices)


def _rescored(rows: UnitRows, places: NDArray[np.int64], candidates: NDArray[np.int64], k: int) -> Tensor:
    """The best k keys of the rows at `places` among their candidates (−1: none), by the defined similarity."""
    count = candidates.shape[1]
    found = torch.full((len(places), max(k, count)), ABSENT, dtype=torch.int64)
    for block in _blocks(np.arange(len(places)), rows.rows_at_once(count)):
        theirs = candidates[block]
        others = rows.take(theirs.clip(min=0).ravel()).view(len(block), count, rows.dim)
        similarity = pair_similarity(rows.take(places[block]).unsqueeze(1), others).cpu()
        neighbours = torch.from_numpy(theirs)
        none = (neighbours < 0) | (neighbours == torch.from_numpy(places[block]).unsqueeze(1))
        found[block, :count] = keys_of(similarity, neighbours).masked_fill_(none, ABSENT)
    return found.topk(k, dim=1).values


def _search_in_double(rows: UnitRows, places: NDArray[np.int64], k: int) -> Tensor:
    """The best k keys of the rows at `places`, by fp64 products with all rows.

    Their error is so small that rounding to multiples of 2⁻²⁴ gives the defined similarity, but for the few pairs close
    to the middle between two multiples, for which that is computed.
    """
    mine, mine_at = rows.take(places), torch.from_numpy(places).to(rows.device)
    error = product_error(rows.dim, torch.float64)
    best = torch.full((len(places), k), ABSENT, dtype=torch.int64, device=rows.device)
    side = _tile_side(rows, _DOUBLE_CELL)
    for first in range(0, len(rows), side):
        others = rows.tile(first, first + side)
        columns = torch.arange(first, first + len(others), device=rows.device)
        product = mine.double() @ others.double().T
        similarity = quantised(product)
        doubtful = quantised(product - error) != quantised(product + error)
        doubtful &= similarity + 1 >= (best[:, -1:] >> 31)
        for pairs in torch.split(doubtful.nonzero(), rows.rows_at_once()):
            here, there = pairs.unbind(1)
            similarity[here, there] = pair_similarity(mine[here], others[there])
        keys = keys_of(similarity, columns).masked_fill_(columns == mine_at.unsqueeze(1), ABSENT)
        keys = keys.topk(min(k, len(others)), dim=1).values
        best = torch.cat([best, keys], dim=1).topk(k, dim=1).values
    return best.cpu()


def _search_with_faiss(rows: UnitRows, k: int) -> Tensor:
    keys = torch.full((len(rows), k), ABSENT, dtype=torch.int64)
    for places, candidates in faiss_candidates(rows, k + _SPARE):
        keys[places] = _rescored(rows, places, candidates, k)
    return keys


def _tile_side(rows: UnitRows, bytes_per_cell: int) -> int:
    """Rows and columns of a tile: cells, and the two lists of rows that span it, share the memory.

    The positive root of `c s² + 2 · 24 F s = tile_bytes`.
    """
    values = float(_VALUE * rows.dim)
    side = (math.sqrt(values**2 + bytes_per_cell * rows.tile_bytes) - values) / bytes_per_cell
    if side < 1:
        raise ValueError(f"tile_bytes={rows.tile_bytes} is too little for rows of {rows.dim} features")
    return int(side) // _CHUNK * _CHUNK if side >= _CHUNK else int(side)


def _blocks(places: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]
