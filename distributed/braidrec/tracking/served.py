"""The code inside a saved recommender; see `model.py`. It imports nothing of this library, which need not be there."""

from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from mlflow.pyfunc import PythonModel
from safetensors.numpy import load_file

_TILE_SCORES = 16_000_000
"""Scores in memory at a time: 64 MB of float32."""


class ServedRecommender(PythonModel):  # type: ignore[misc]
    """Top k by the inner product of user and item vectors; of equal scores the smaller row comes first."""

    def load_context(self, context: Any) -> None:
        tensors = load_file(context.artifacts["vectors"])
        self._user_vectors = tensors["user_vectors"]
        self._item_vectors = tensors["item_vectors"]
        self._seen_start = tensors.get("seen_start")
        self._seen_items = tensors.get("seen_items")
        users = pq.read_table(context.artifacts["users"])["user_id"].to_pandas()
        self._user_rows = pd.Index(users)
        self._item_ids = pq.read_table(context.artifacts["items"])["item_id"].to_numpy()

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """`user_id` → `user_id, rank, item_id, score`, users in the order asked for.

        Raises:
            ValueError: an unknown user, a k below 1, or seen items to be left out where none were saved.
        """
        options = {"k": 10, "exclude_seen": self._seen_start is not None, **(params or {})}
        if options["k"] < 1:
            raise ValueError(f"k={options['k']}: must be at least 1")
        if options["exclude_seen"] and self._seen_start is None:
            raise ValueError("exclude_seen=True, but this model was saved without the users' interactions")
        user_ids = model_input["user_id"].astype(str).to_numpy()
        rows = self._user_rows.get_indexer(user_ids)
        if (rows < 0).any():
            unknown = user_ids[rows < 0]
            raise ValueError(f"{len(unknown)} unknown users, the first is {unknown[0]!r}; known are those trained on")
        size = max(1, _TILE_SCORES // len(self._item_vectors))
        tiles = [slice(start, start + size) for start in range(0, len(rows), size)]
        parts = [self._answer(user_ids[tile], rows[tile], options["k"], options["exclude_seen"]) for tile in tiles]
        return pd.concat(parts, ignore_index=True) if parts else self._frame([], [], [], [])

    def _answer(self, user_ids: Any, rows: Any, k: int, exclude_seen: bool) -> pd.DataFrame:
        scores = self._user_vectors[rows] @ self._item_vectors.T
        if exclude_seen:
            starts, ends = self._seen_start[rows], self._seen_start[rows + 1]
            counts = ends - starts
            owner = np.repeat(np.arange(len(rows)), counts)
            offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            scores[owner, self._seen_items[np.repeat(starts, counts) + offset]] = -np.inf
        k = min(k, scores.shape[1])
        top = _top(scores, k)
        values = np.take_along_axis(scores, top, axis=1)
        kept = np.isfinite(values)
        who, place = np.nonzero(kept)
        return self._frame(user_ids[who], place + 1, self._item_ids[top[kept]], values[kept])

    @staticmethod
    def _frame(users: Any, ranks: Any, items: Any, scores: Any) -> pd.DataFrame:
        return pd.DataFrame(
            {
                "user_id": pd.Series(users, dtype="object"),
                "rank": pd.Series(ranks, dtype="int32"),
                "item_id": pd.Series(items, dtype="object"),
                "score": pd.Series(scores, dtype="float32"),
            }
        )


def _top(scores: Any, k: int) -> Any:
    """[users, items] → [users, k] item rows, best first, exactly, equal scores in order of their row."""
    threshold = np.partition(scores, scores.shape[1] - k, axis=1)[:, -k, None]
    above = scores > threshold
    level = scores == threshold
    # Of those level with the k-th score, the first rows fill what the better ones leave.
    chosen = above | (level & (np.cumsum(level, axis=1) <= k - above.sum(axis=1, keepdims=True)))
    candidates = np.nonzero(chosen)[1].reshape(len(scores), k)
    order = np.argsort(-np.take_along_axis(scores, candidates, axis=1), axis=1, kind="stable")
    return np.take_along_axis(candidates, order, axis=1)


mlflow.models.set_model(ServedRecommender())
