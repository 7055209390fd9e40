"""Full-ranking evaluation of a ranker on one split: run on shards of users, merge, and read the result."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from braidrec.evaluation.ann import AnnSearch
from braidrec.evaluation.full_ranking import Ranking, ReportProgress, rank_tiles
from braidrec.evaluation.held_out import Ints, UserItems
from braidrec.evaluation.metrics import CUTOFF_METRICS, RankedUsers, UserMetric, build_metrics
from braidrec.evaluation.ranker import Ranker, predicted_ratings
from braidrec.evaluation.slices import Slice, slice_result
from braidrec.evaluation.state import EvaluationResult, EvaluationState


class Evaluator:
    """Evaluates any ranker on one split with one set of metrics.

    Users without held-out items are not evaluated. Users without train interactions are, and are counted. A held-out
    item that is masked as well could never be recommended: it is left out, and counted.

    Args:
        held_out: the split's pairs; with `values` if ratings are to be judged.
        mask: pairs that are no candidates: those of train, or of train and valid.
        at: the cut-offs k.
        metrics: names of the cut-off metrics.
        train_item_degree: [num_items] train interactions per item.
        train_user_degree: [num_users] train interactions per user.
        auc: also the exact AUC per user (several times slower).
        rating: also RMSE and MAE between what the scores are as ratings and the held-out values.
        slices: also the metrics of these groups.
        per_user: keep each user's values, for `per_user()`. Not needed for the averages.
        tile_mb: MiB for one tile of scores.

    Raises:
        ValueError: sizes that do not match, ratings missing, unknown metrics, nothing held out.
    """

    def __init__(
        self,
        *,
        held_out: UserItems,
        mask: UserItems,
        train_item_degree: Ints,
        train_user_degree: Ints,
        at: Sequence[int] = (10, 20),
        metrics: Sequence[str] = tuple(CUTOFF_METRICS),
        auc: bool = False,
        rating: bool = False,
        slices: Sequence[Slice] = (),
        per_user: bool = False,
        tile_mb: int = 64,
    ) -> None:
        _check_sizes(held_out, mask, train_item_degree, train_user_degree)
        if rating and held_out.values is None:
            raise ValueError("rating metrics need the ratings of the held-out pairs: give held_out its values")
        self._held_out = held_out.without(mask)
        self._mask = mask
        self._train_item_degree = np.asarray(train_item_degree, dtype=np.int64)
        self._train_user_degree = np.asarray(train_user_degree, dtype=np.int64)
        self._k_max = max(at, default=0)
        self._metrics = build_metrics(at, names=metrics, auc=auc, rating=rating)
        self._user_metrics = [metric for metric in self._metrics if isinstance(metric, UserMetric)]
        self._auc, self._rating, self._slices = auc, rating, tuple(slices)
        self._per_user, self._tile_mb = per_user, tile_mb
        self._num_held_out_masked = len(held_out.items) - len(self._held_out.items)
        self.users = self._held_out.users
        """The users to evaluate, ascending: shard these, such as `users[rank::world_size]`."""
        if not len(self.users):
            raise ValueError(
                f"nothing to evaluate: {len(held_out.items)} pairs are held out, "
                f"of which {self._num_held_out_masked} are masked too"
            )

    def run(
        self,
        ranker: Ranker,
        users: Ints | None = None,
        progress: ReportProgress | None = None,
        *,
        search: AnnSearch | None = None,
    ) -> EvaluationState:
        """Ranks for these users (None: all of the split) and sums up; `progress(users done, users in all)`.

        Args:
            search: ranks approximately, by the ranker's vectors; None: exactly.
        Raises:
            ValueError: a NaN score, a ranker of another data set, or AUC or ratings by an approximate search.
        """
        shard = self.users if users is None else np.asarray(users, dtype=np.int64)
        shard = shard[self._held_out.counts[shard] > 0]
        states = [self._state(self._ranked(_nobody(self._k_max), ranker))]
        tiles = self._tiles(ranker, shard, progress, search)
        rows = [states[0].rows]
        for tile in tiles:
            # Sums two at a time, for those of a large catalogue are large; rows once, at the end.
            state = self._state(self._ranked(tile, ranker))
            rows.append(state.rows)
            states = [EvaluationState.merge([replace(part, rows=part.rows[:0]) for part in (*states, state)])]
        return replace(states[0], rows=np.concatenate(rows))

    def _tiles(
        self, ranker: Ranker, users: Ints, progress: ReportProgress | None, search: AnnSearch | None
    ) -> Iterator[Ranking]:
        if search is not None:
            if self._auc or self._rating:
                raise ValueError("AUC and errors of ratings need the scores of all items: rank exactly")
            return search.rank_tiles(users, mask=self._mask, k_max=self._k_max, progress=progress)
        return rank_tiles(
            ranker,
            users,
            mask=self._mask,
            k_max=self._k_max,
            held_out=self._held_out if self._auc or self._rating else None,
            auc=self._auc,
            tile_mb=self._tile_mb,
            progress=progress,
        )

    def result(self, state: EvaluationState) -> EvaluationResult:
        """The metrics of all users in the state."""
        metrics = {m.key: m.result(state.sums[m.state_key], self._train_item_degree) for m in self._metrics}
        slices = {}
        for part in self._slices:
            prefix = _slice_key(part, "")
            sums = {key.removeprefix(prefix): value for key, value in state.sums.items() if key.startswith(prefix)}
            slices[part.name] = slice_result(part, sums)
        return EvaluationResult(
            metrics=metrics,
            num_users=int(state.sums["num_users"][0]),
            num_users_without_train=int(state.sums["num_users_without_train"][0]),
            num_held_out=int(state.sums["num_held_out"][0]),
            num_held_out_masked=self._num_held_out_masked,
            slices=slices,
        )

    def per_user(self, state: EvaluationState) -> pa.Table:
        """One row a user, ascending: user:int32, num_held_out:int32, then a float64 column a metric.

        Raises:
            ValueError: the evaluator was made without `per_user=True`.
        """
        if not self._per_user:
            raise ValueError("the values of single users were not kept: make the Evaluator with per_user=True")
        rows = state.rows[np.argsort(state.rows[:, 0], kind="stable")]
        columns: dict[str, NDArray[np.generic]] = {
            "user": rows[:, 0].astype(np.int32),
            "num_held_out": rows[:, 1].astype(np.int32),
        }
        columns |= {metric.key: rows[:, index] for index, metric in enumerate(self._user_metrics, start=2)}
        return pa.table(columns)

    def _ranked(self, tile: Ranking, ranker: Ranker) -> RankedUsers:
        rows, items = self._held_out.rows(tile.users)
        errors = None
        if self._rating and tile.held_out_scores is not None:
            predicted = predicted_ratings(ranker, tile.held_out_scores.astype(np.float64))
            errors = predicted - self._held_out.row_values(tile.users)
            if not np.isfinite(errors).all():
                raise ValueError("a predicted or held-out rating is not finite")
        return RankedUsers(
            users=tile.users,
            items=tile.items,
            hits=self._held_out.contains(tile.users, tile.items),
            num_held_out=self._held_out.counts[tile.users],
            held_out_rows=rows,
            held_out_items=items,
            num_items=self._held_out.num_items,
            auc=tile.auc,
            rating_errors=errors,
        )

    def _state(self, ranked: RankedUsers) -> EvaluationState:
        sums = {
            "num_users": np.array([len(ranked.users)], dtype=np.float64),
            "num_users_without_train": np.array(
                [np.count_nonzero(self._train_user_degree[ranked.users] == 0)], dtype=np.float64
            ),
            "num_held_out": np.array([len(ranked.held_out_items)], dtype=np.float64),
        }
        for metric in self._metrics:
            if metric.state_key not in sums:
                sums[metric.state_key] = metric.sums(ranked)
        for part in self._slices:
            for key, value in part.sums(ranked, self._user_metrics).items():
                sums[_slice_key(part, key)] = value
        columns = [ranked.users, ranked.num_held_out, *(metric.values(ranked) for metric in self._user_metrics)]
        rows = np.stack(columns, axis=1).astype(np.float64)
        return EvaluationState(sums=sums, rows=rows if self._per_user else rows[:0])


def _slice_key(part: Slice, key: str) -> str:
    return f"slice/{part.name}/{key}"


def _nobody(k: int) -> Ranking:
    empty = np.empty((0, k))
    return Ranking(
        users=np.empty(0, dtype=np.int64),
        items=empty.astype(np.int64),
        scores=empty.astype(np.float32),
        held_out_scores=np.empty(0, dtype=np.float32),
        auc=np.empty(0),
    )


def _check_sizes(
    held_out: UserItems,
    mask: UserItems,
    train_item_degree: NDArray[np.integer],
    train_user_degree: NDArray[np.integer],
) -> None:
    sizes = (held_out.num_users, held_out.num_items)
    found = {
        "mask": (mask.num_users, mask.num_items),
        "train_user_degree and train_item_degree": (len(train_user_degree), len(train_item_degree)),
    }
    for name, size in found.items():
        if size != sizes:
            raise ValueError(
                f"{name} has {size[0]} users and {size[1]} items but held_out has {sizes[0]} and {sizes[1]}: "
                "build them from the same data set"
            )
