"""Scores in tiles of users × candidates, in one buffer that is used again and again."""

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braidrec.evaluation.ranker import Ranker, VectorRanker

BLOCK_USERS, BLOCK_ITEMS = 256, 4096
"""Every matrix product has exactly this shape (the last items excepted): it fits the processor's cache, and a score
does not depend on the size of the tile or on which users share it, as it otherwise does in the last bits."""

_MIB_FLOATS = (1 << 20) // 4


class ScoreTiles(Protocol):
    """Computes a tile at a time. `rows` users fit a tile; `ranges` are the columns (start, stop) of its item tiles."""

    rows: int
    ranges: list[tuple[int, int]]
    offset: float
    """Constant that the tiles leave out of the scores."""

    def compute(self, users: NDArray[np.int64], columns: tuple[int, int]) -> Tensor:
        """float32 [len(users), stop − start], writable, valid until the next call."""
        ...


def score_tiles(ranker: Ranker, candidates: NDArray[np.int64] | None, *, num_users: int, tile_mb: int) -> ScoreTiles:
    """Tiles of at most `tile_mb` MiB, but at least one block (4 MiB) or, without vectors, one row.

    Args:
        ranker: the model.
        candidates: ascending items that are the columns; None for all items.
        num_users: how many will be ranked: no tile is larger than they need.
        tile_mb: MiB for one tile of scores.
    """
    if isinstance(ranker, VectorRanker):
        return _VectorTiles(ranker, candidates, num_users=num_users, tile_mb=tile_mb)
    return _RowTiles(ranker, candidates, num_users=num_users, tile_mb=tile_mb)


class _VectorTiles:
    def __init__(
        self, ranker: VectorRanker, candidates: NDArray[np.int64] | None, *, num_users: int, tile_mb: int
    ) -> None:
        self._ranker = ranker
        self._items = ranker.item_vectors(None if candidates is None else torch.from_numpy(candidates))
        self.offset = ranker.offset
        columns = self._items.shape[0]
        columns_that_fit = tile_mb * _MIB_FLOATS // BLOCK_USERS
        if columns <= columns_that_fit:
            user_blocks, width = columns_that_fit // columns, columns
        else:
            user_blocks, width = 1, min(columns, BLOCK_ITEMS * max(1, columns_that_fit // BLOCK_ITEMS))
        self.rows = BLOCK_USERS * max(1, min(user_blocks, math.ceil(num_users / BLOCK_USERS)))
        self.ranges = [(start, min(start + width, columns)) for start in range(0, columns, width)]
        self._buffer = torch.empty(self.rows * width, dtype=torch.float32, device=ranker.device)

    def compute(self, users: NDArray[np.int64], columns: tuple[int, int]) -> Tensor:
        start, stop = columns
        padded = math.ceil(len(users) / BLOCK_USERS) * BLOCK_USERS
        vectors = torch.zeros(padded, self._ranker.dim, dtype=torch.float32, device=self._ranker.device)
        vectors[: len(users)] = self._ranker.user_vectors(torch.from_numpy(users))
        tile = self._buffer[: padded * (stop - start)].view(padded, stop - start)
        for left in range(start, stop, BLOCK_ITEMS):
            right = min(left + BLOCK_ITEMS, stop)
            items = self._items[left:right].t()
            for top in range(0, padded, BLOCK_USERS):
                block = tile[top : top + BLOCK_USERS, left - start : right - start]
                torch.mm(vectors[top : top + BLOCK_USERS], items, out=block)
        return tile[: len(users)]


class _RowTiles:
    def __init__(self, ranker: Ranker, candidates: NDArray[np.int64] | None, *, num_users: int, tile_mb: int) -> None:
        self._ranker = ranker
        self._candidates = candidates
        self.offset = 0.0
        columns = ranker.num_items if candidates is None else len(candidates)
        self.rows = max(1, min(tile_mb * _MIB_FLOATS // max(ranker.num_items, 1), num_users))
        self.ranges = [(0, columns)]

    def compute(self, users: NDArray[np.int64], columns: tuple[int, int]) -> Tensor:
        with torch.no_grad():
            scores = self._ranker.score(torch.from_numpy(users))
        expected = (len(users), self._ranker.num_items)
        if tuple(scores.shape) != expected or scores.dtype != torch.float32:
            raise ValueError(
                f"{type(self._ranker).__name__}.score returned {scores.dtype} {list(scores.shape)}: "
                f"wanted torch.float32 {list(expected)}"
            )
        # A copy in either case: the tile is masked in place and the ranker may keep what it returned.
        if self._candidates is None:
            return scores.detach().clone(memory_format=torch.contiguous_format)
        return scores.index_select(1, torch.from_numpy(self._candidates).to(scores.device))
