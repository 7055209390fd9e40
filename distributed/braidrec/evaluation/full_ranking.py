"""Ranks all items for many users, in tiles: never a dense users × items matrix."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.profiler import record_function

from braidrec.evaluation.held_out import Ints, UserItems
from braidrec.evaluation.pairwise import PairWins
from braidrec.evaluation.ranker import Ranker
from braidrec.evaluation.score_tiles import ScoreTiles, score_tiles
from braidrec.evaluation.topk import decode, merge_keys, top_k_keys

_Values = TypeVar("_Values", NDArray[np.float32], NDArray[np.float64])

ReportProgress = Callable[[int, int], None]
"""Called with (users done, users in all) after each tile."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """The best items of some users."""

    users: NDArray[np.int64]
    """[n]"""
    items: NDArray[np.int64]
    """[n, k], best first, equal scores by ascending item; −1 where a user has fewer candidates than k."""
    scores: NDArray[np.float32]
    """[n, k]; −inf beside an item of −1."""
    held_out_scores: NDArray[np.float32] | None = None
    """[pairs] aligned with `held_out.rows(users)`, if held-out items were given."""
    auc: NDArray[np.float64] | None = None
    """[n], if asked for; NaN for a user without negatives."""


def rank(
    ranker: Ranker,
    users: Ints,
    *,
    mask: UserItems,
    k_max: int,
    held_out: UserItems | None = None,
    auc: bool = False,
    candidates: Ints | None = None,
    tile_mb: int = 64,
    progress: ReportProgress | None = None,
) -> Ranking:
    """The k_max best items for each user; arguments and errors as for `rank_tiles`."""
    tiles = list(
        rank_tiles(
            ranker,
            users,
            mask=mask,
            k_max=k_max,
            held_out=held_out,
            auc=auc,
            candidates=candidates,
            tile_mb=tile_mb,
            progress=progress,
        )
    )
    if not tiles:
        none = np.empty((0, k_max))
        return Ranking(users=np.empty(0, np.int64), items=none.astype(np.int64), scores=none.astype(np.float32))
    return Ranking(
        users=np.concatenate([tile.users for tile in tiles]),
        items=np.concatenate([tile.items for tile in tiles]),
        scores=np.concatenate([tile.scores for tile in tiles]),
        held_out_scores=_joined([tile.held_out_scores for tile in tiles]),
        auc=_joined([tile.auc for tile in tiles]),
    )


def rank_tiles(
    ranker: Ranker,
    users: Ints,
    *,
    mask: UserItems,
    k_max: int,
    held_out: UserItems | None = None,
    auc: bool = False,
    candidates: Ints | None = None,
    tile_mb: int = 64,
    progress: ReportProgress | None = None,
) -> Iterator[Ranking]:
    """Yields the rankings of one tile of users after another, in the order of `users`.

    Args:
        ranker: the model.
        users: whom to rank for, each once.
        mask: items that are no candidates for a user, such as those seen in training.
        k_max: length of the lists.
        held_out: pairs whose scores are wanted too; disjoint from `mask` where `auc` is asked for.
        auc: also the exact AUC of each user's held-out items. Sorts every row: several times slower.
        candidates: only these items may be recommended, to anyone; None for all. Not together with `held_out`.
        tile_mb: MiB for one tile of scores (at least 4 are used). What else is needed is of the same order or less.
        progress: told after each tile.

    Raises:
        ValueError: a NaN score, naming a user; ids that the ranker does not know; options that exclude each other.
    """
    wanted = np.asarray(users, dtype=np.int64)
    _check(ranker, wanted, mask=mask, held_out=held_out, auc=auc, candidates=candidates)
    chosen = None if candidates is None else np.unique(np.asarray(candidates, dtype=np.int64))
    tiles = score_tiles(ranker, chosen, num_users=len(wanted), tile_mb=tile_mb)
    columns = _Columns(chosen, ranker.num_items)
    for start in range(0, len(wanted), tiles.rows):
        part = wanted[start : start + tiles.rows]
        yield _rank_tile(tiles, columns, part, mask=mask, k_max=k_max, held_out=held_out, auc=auc)
        if progress is not None:
            progress(start + len(part), len(wanted))


class _Columns:
    """Which column of the scores an item is, when only some items are candidates."""

    def __init__(self, candidates: NDArray[np.int64] | None, num_items: int) -> None:
        self._candidates = candidates
        if candidates is not None:
            self._column_of = np.full(num_items, -1, dtype=np.int64)
            self._column_of[candidates] = np.arange(len(candidates))

    def pairs(self, items: UserItems, users: NDArray[np.int64]) -> "_Pairs":
        """The users' items as entries of their rows; those that are no candidates are left out."""
        rows, owned = items.rows(users)
        if self._candidates is None:
            return _Pairs(rows, owned)
        found = self._column_of[owned]
        return _Pairs(rows[found >= 0], found[found >= 0])

    def items(self, columns: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._candidates is None:
            return columns
        return np.where(columns < 0, -1, self._candidates[columns])


class _Pairs:
    """Entries (row, column) of a tile of users."""

    def __init__(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        self.rows, self.columns = rows, columns

    def hide(self, tile: Tensor, start: int) -> NDArray[np.int64]:
        """Makes the entries −inf; how many they are per row. The tile begins at column `start`."""
        rows, columns, found = self._inside(tile, start)
        tile[rows, columns] = -torch.inf
        return np.bincount(self.rows[found], minlength=len(tile))

    def _inside(self, tile: Tensor, start: int) -> tuple[Tensor, Tensor, NDArray[np.bool_]]:
        found = (self.columns >= start) & (self.columns < start + tile.shape[1])
        rows = torch.from_numpy(self.rows[found]).to(tile.device)
        return rows, torch.from_numpy(self.columns[found] - start).to(tile.device), found


class _ScoredPairs(_Pairs):
    """Held-out pairs and, once read from all item tiles, their scores."""

    def __init__(self, pairs: _Pairs) -> None:
        super().__init__(pairs.rows, pairs.columns)
        self.scores = np.empty(len(pairs.rows), dtype=np.float32)

    def read(self, tile: Tensor, start: int) -> None:
        rows, columns, found = self._inside(tile, start)
        self.scores[found] = tile[rows, columns].cpu().numpy()


def _rank_tile(
    tiles: ScoreTiles,
    columns: _Columns,
    users: NDArray[np.int64],
    *,
    mask: UserItems,
    k_max: int,
    held_out: UserItems | None,
    auc: bool,
) -> Ranking:
    masked = columns.pairs(mask, users)
    wanted = None if held_out is None else _ScoredPairs(columns.pairs(held_out, users))
    if auc and wanted is not None and len(tiles.ranges) > 1:
        # Counting needs all held-out scores: with several item tiles they take a pass of their own.
        for start, stop in tiles.ranges:
            wanted.read(tiles.compute(users, (start, stop)), start)
    keys: Tensor | None = None
    wins: PairWins | None = None
    for start, stop in tiles.ranges:
        with record_function("ranking/scores"):
            tile = tiles.compute(users, (start, stop))
        if wanted is not None:
            wanted.read(tile, start)
        with record_function("ranking/mask"):
            num_hidden = masked.hide(tile, start)
        with record_function("ranking/top_k"):
            keys = _best_keys(tile, start, k_max, users, keys)
        if auc and wanted is not None:
            with record_function("ranking/auc"):
                wins = wins or PairWins(wanted.rows, torch.from_numpy(wanted.scores).to(tile.device), len(users))
                wins.add(tile, num_hidden + wanted.hide(tile, start))
    assert keys is not None, "there is at least one item tile"
    found, scores = decode(keys)
    return Ranking(
        users=users,
        items=columns.items(found.cpu().numpy()),
        scores=(scores + tiles.offset).cpu().numpy(),
        held_out_scores=None if wanted is None else wanted.scores + np.float32(tiles.offset),
        auc=None if wins is None else wins.auc(),
    )


def _best_keys(tile: Tensor, start: int, k: int, users: NDArray[np.int64], keys: Tensor | None) -> Tensor:
    try:
        more = top_k_keys(tile, k, first_item=start)
    except ValueError as error:
        bad = torch.nonzero(tile.isnan().any(dim=1))
        if not len(bad):
            raise
        raise ValueError(
            f"user {users[int(bad[0])]} has a score that is NaN: the model has diverged or its input holds NaN"
        ) from error
    return more if keys is None else merge_keys(keys, more)


def _check(
    ranker: Ranker,
    users: NDArray[np.int64],
    *,
    mask: UserItems,
    held_out: UserItems | None,
    auc: bool,
    candidates: Ints | None,
) -> None:
    for name, given in (("mask", mask), ("held_out", held_out)):
        if given is not None and (given.num_users, given.num_items) != (ranker.num_users, ranker.num_items):
            raise ValueError(
                f"{name} has {given.num_users} users and {given.num_items} items but the ranker knows "
                f"{ranker.num_users} and {ranker.num_items}: build both from the same data set"
            )
    if len(users) and (users.min() < 0 or users.max() >= ranker.num_users):
        raise ValueError(f"users {users.min()} … {users.max()}: the ranker knows 0 … {ranker.num_users - 1}")
    if len(np.unique(users)) < len(users):
        raise ValueError(f"{len(users) - len(np.unique(users))} users are given more than once")
    if auc and held_out is None:
        raise ValueError("auc needs held_out")
    if auc and held_out is not None and len(held_out.without(mask).items) < len(held_out.items):
        raise ValueError("held_out and mask share pairs, which leaves AUC undefined: use held_out.without(mask)")
    if candidates is not None and held_out is not None:
        raise ValueError("candidates and held_out exclude each other: held-out items could be missing among them")
    if candidates is not None and not len(candidates):
        raise ValueError("candidates is empty: leave it out to rank all items")
    if candidates is not None:
        low, high = int(np.min(candidates)), int(np.max(candidates))
        if low < 0 or high >= ranker.num_items:
            raise ValueError(f"candidates {low} … {high}: the ranker knows items 0 … {ranker.num_items - 1}")


def _joined(parts: list[_Values | None]) -> _Values | None:
    given = [part for part in parts if part is not None]
    return np.concatenate(given) if given else None
