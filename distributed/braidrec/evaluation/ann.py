"""Approximate full ranking: an index over the items' vectors (FAISS) instead of the scores of all of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray

from braidrec.evaluation.full_ranking import Ranking, ReportProgress, rank
from braidrec.evaluation.held_out import Ints, UserItems
from braidrec.evaluation.ranker import VectorRanker

USERS_AT_ONCE = 1_024
_CELLS_PER_ROOT = 4
_SHARE_PROBED = 1 / 32
_FEWEST_PROBES = 16
_ROWS_PER_CELL_IN_TRAINING = 64
_FEWEST_ROWS_PER_CELL = 39
"""FAISS warns below this."""
_TRAINING_ROUNDS = 10
_BYTES_AT_ONCE = 64 << 20


@dataclass(kw_only=True)
class AnnReport:
    """What an approximate ranking was worth.

    Attributes:
        n_list, n_probe: cells, and how many of them were searched for a user.
        k: length of the lists.
        recall: share of the exact k best that was found, a mean over `recall_users` users; NaN where none has a
            candidate.
        short_users: users who got fewer than k items though they have more candidates.
    """

    n_list: int
    n_probe: int
    k: int
    recall: float = math.nan
    recall_users: int = 0
    short_users: int = 0

    @property
    def text(self) -> str:
        """In a line."""
        found = (
            f"recall@{self.k} {self.recall:.4f} of the exact lists, over {self.recall_users:,} users"
            if self.recall_users
            else "recall against exact lists not known: no user has a candidate"
        )
        short = f"; {self.short_users:,} users got fewer than {self.k}" if self.short_users else ""
        return f"approximate (n_list={self.n_list:,}, n_probe={self.n_probe:,}): {found}{short}"


class AnnIndex:
    """The candidates' vectors in an inverted file (FAISS `IndexIVFFlat`, inner product).

    Vectors are put into `n_list` cells by spherical k-means; a user's vector is compared with those in the `n_probe`
    cells whose centres are nearest to it, exactly.

    Args:
        ranker: scores are inner products.
        candidates: ascending items; None: all.
        n_list: cells; None: 4 √n.
        n_probe: cells searched for a user; None: a 32nd of them, at least 16.
    Raises:
        ModuleNotFoundError: FAISS is not installed.
        ValueError: more cells than vectors, more searched than there are, or a vector that is not finite.
    """

    def __init__(
        self,
        ranker: VectorRanker,
        candidates: NDArray[np.int64] | None = None,
        *,
        n_list: int | None = None,
        n_probe: int | None = None,
    ) -> None:
        faiss = _import_faiss()
        self._items = candidates
        count = ranker.num_items if candidates is None else len(candidates)
        suits = max(1, min(int(_CELLS_PER_ROOT * math.sqrt(count)), count // _FEWEST_ROWS_PER_CELL))
        self.n_list = suits if n_list is None else n_list
        self.n_probe = (
            min(self.n_list, max(_FEWEST_PROBES, int(self.n_list * _SHARE_PROBED))) if n_probe is None else n_probe
        )
        if self.n_list > count or self.n_probe > self.n_list:
            raise ValueError(
                f"n_list={self.n_list}, n_probe={self.n_probe}: wanted n_probe ≤ n_list ≤ {count}, the items to search"
            )
        quantiser = faiss.IndexFlatIP(ranker.dim)
        self._index = faiss.IndexIVFFlat(quantiser, ranker.dim, self.n_list, faiss.METRIC_INNER_PRODUCT)
        self._index.cp.spherical = True
        self._index.cp.min_points_per_centroid = 1  # no warning: how many cells there are was asked for
        self._index.cp.niter = _TRAINING_ROUNDS
        self._index.nprobe = self.n_probe
        self._size = count
        trained_on = min(count, _ROWS_PER_CELL_IN_TRAINING * self.n_list)
        self._index.train(self._vectors(ranker, np.arange(trained_on) * count // trained_on))
        at_once = max(1, _BYTES_AT_ONCE // (4 * ranker.dim))
        for start in range(0, count, at_once):
            self._index.add(self._vectors(ranker, np.arange(start, min(start + at_once, count))))

    def __len__(self) -> int:
        return self._size

    def probe(self, n_probe: int) -> None:
        """Search another number of cells from now on."""
        self.n_probe = self._index.nprobe = n_probe

    def search(self, vectors: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The k best items found for each vector, `[n, k]` each, best first, equal scores by ascending item; −1 and
        −inf where there are no more."""
        scores, places = self._index.search(vectors, k)
        items = places if self._items is None else np.where(places < 0, -1, self._items[places])
        scores = np.where(items < 0, -np.inf, scores).astype(np.float32)
        order = np.lexsort((items, -scores), axis=-1)
        return np.take_along_axis(items, order, axis=1), np.take_along_axis(scores, order, axis=1)

    def _vectors(self, ranker: VectorRanker, places: NDArray[np.int64]) -> NDArray[np.float32]:
        items = places if self._items is None else self._items[places]
        vectors = ranker.item_vectors(torch.from_numpy(items)).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise ValueError("an item's vector is not finite: the model has diverged or its input holds NaN")
        return np.ascontiguousarray(vectors)


class AnnSearch:
    """Ranks by an index, and knows what it is worth.

    Args:
        ranker: scores are inner products.
        candidates: only these may be recommended; None: all.
        n_list, n_probe: as of `AnnIndex`.
        recall_users: how many users' lists are compared with exact ones.
        tile_mb: MiB for one tile of exact scores.
    Raises:
        ValueError: as of `AnnIndex`.
    """

    def __init__(
        self,
        ranker: VectorRanker,
        candidates: Ints | None = None,
        *,
        n_list: int | None = None,
        n_probe: int | None = None,
        recall_users: int = 500,
        tile_mb: int = 64,
    ) -> None:
        self._ranker, self._recall_users, self._tile_mb = ranker, recall_users, tile_mb
        self._candidates = None if candidates is None else np.unique(np.asarray(candidates, dtype=np.int64))
        self.index = AnnIndex(ranker, self._candidates, n_list=n_list, n_probe=n_probe)
        self.report: AnnReport | None = None

    def rank_tiles(
        self, users: Ints, *, mask: UserItems, k_max: int, progress: ReportProgress | None = None
    ) -> Iterator[Ranking]:
        """As `full_ranking.rank_tiles`, approximately. When the last tile is out, `report` says what it is worth."""
        wanted = np.asarray(users, dtype=np.int64)
        report = AnnReport(n_list=self.index.n_list, n_probe=self.index.n_probe, k=k_max)
        sample = wanted[np.unique(np.linspace(0, len(wanted) - 1, min(self._recall_users, len(wanted))).astype(int))]
        found: list[NDArray[np.int64]] = []
        for start in range(0, len(wanted), USERS_AT_ONCE):
            tile = self._rank_tile(wanted[start : start + USERS_AT_ONCE], mask, k_max, report)
            found.append(tile.items[np.isin(tile.users, sample)])
            yield tile
            if progress is not None:
                progress(start + len(tile.users), len(wanted))
        if len(sample):
            self._compare(np.concatenate(found), sample, mask, report)
        self.report = report

    def _rank_tile(self, users: NDArray[np.int64], mask: UserItems, k: int, report: AnnReport) -> Ranking:
        """Searches for more where masked items took the places, until there are k or nothing is left in the cells."""
        vectors = np.ascontiguousarray(self._ranker.user_vectors(torch.from_numpy(users)).cpu().numpy())
        items = np.full((len(users), k), -1, dtype=np.int64)
        scores = np.full((len(users), k), -np.inf, dtype=np.float32)
        available = len(self.index) - self._masked_candidates(mask, users)
        left, size = np.arange(len(users)), 2 * k
        while len(left):
            size = min(size, len(self.index))
            near, values = self.index.search(vectors[left], size)
            hidden = mask.contains(users[left], near)
            open_places = (near >= 0) & ~hidden
            place = np.cumsum(open_places, axis=1) - 1
            row, column = np.nonzero(open_places & (place < k))
            items[left[row], place[row, column]] = near[row, column]
            scores[left[row], place[row, column]] = values[row, column]
            enough = open_places.sum(axis=1) >= np.minimum(k, available[left])
            exhausted = (near[:, -1] < 0) | (size == len(self.index))
            report.short_users += int((exhausted & ~enough).sum())
            left, size = left[~(enough | exhausted)], 4 * size
        return Ranking(users=users, items=items, scores=scores + np.float32(self._ranker.offset))

    def _masked_candidates(self, mask: UserItems, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many candidates each user is not to be shown."""
        rows, masked = mask.rows(users)
        if self._candidates is not None:
            rows = rows[np.isin(masked, self._candidates)]
        return np.bincount(rows, minlength=len(users))

    def _compare(self, found: NDArray[np.int64], sample: NDArray[np.int64], mask: UserItems, report: AnnReport) -> None:
        exact = rank(
            self._ranker, sample, mask=mask, k_max=report.k, candidates=self._candidates, tile_mb=self._tile_mb
        )
        sizes = (exact.items >= 0).sum(axis=1)
        lists = UserItems.from_edges(
            np.repeat(np.arange(len(sample)), sizes),
            exact.items[exact.items >= 0],
            num_users=len(sample),
            num_items=self._ranker.num_items,
        )
        hits = lists.contains(np.arange(len(sample)), found).sum(axis=1)
        counted = sizes > 0
        report.recall_users = int(counted.sum())
        report.recall = float((hits[counted] / sizes[counted]).mean()) if counted.any() else math.nan


def _import_faiss() -> ModuleType:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "index=ann needs FAISS: pip install 'braidrec[ann]', or set index=exact", name="faiss"
        ) from error
    module: ModuleType = faiss
    return module
