"""A finished recommender as an MLflow pyfunc model: vectors as safetensors, ids as Parquet, and code to read them.

The model needs numpy, pandas, pyarrow and safetensors, neither torch nor this library, and nothing in it is pickled:
its class is in `served.py`, which MLflow copies into the model and runs when the model is loaded (models from code).
"""

import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from braidrec.tracking.store import quiet_mlflow

_CODE = Path(__file__).with_name("served.py")
_PACKAGES = ("mlflow", "numpy", "pandas", "pyarrow", "safetensors")
_EXAMPLE_USERS = 2

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]


def save_recommender(
    folder: Path,
    *,
    user_vectors: Vectors,
    item_vectors: Vectors,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    seen: tuple[Rows, Rows] | None = None,
) -> None:
    """Save a model that answers the top k items of given users by the inner product of their vectors.

    Input: a frame with the column `user_id`. Parameters: `k` (10) and `exclude_seen` (true where `seen` is given: what
    the user already has is not recommended). Output: a frame `user_id, rank, item_id, score`, ranks from 1.

    Args:
        folder: where to save; must not exist, or be empty.
        user_vectors: [users, dim]; a bias is one more dimension.
        item_vectors: [items, dim].
        user_ids, item_ids: the data set's own ids in row order, each once.
        seen: (rows of users, rows of items) of the interactions that `exclude_seen` leaves out.
    Raises:
        ValueError: vectors, ids or rows that do not fit together.
    """
    _check_vectors(user_vectors, user_ids, "user")
    _check_vectors(item_vectors, item_ids, "item")
    if user_vectors.shape[1] != item_vectors.shape[1]:
        raise ValueError(f"user vectors have {user_vectors.shape[1]} dimensions, item vectors {item_vectors.shape[1]}")
    quiet_mlflow()
    from mlflow.pyfunc import save_model

    with tempfile.TemporaryDirectory(prefix="braidrec-model-") as temporary:
        parts = Path(temporary)
        tensors = {"user_vectors": user_vectors, "item_vectors": item_vectors, **_seen_rows(seen, user_ids, item_ids)}
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, parts / "vectors.safetensors"
        )
        pq.write_table(pa.table({"user_id": pa.array(user_ids, pa.string())}), parts / "users.parquet")
        pq.write_table(pa.table({"item_id": pa.array(item_ids, pa.string())}), parts / "items.parquet")
        save_model(
            path=str(folder),
            python_model=str(_CODE),
            artifacts={file.stem: str(file) for file in parts.iterdir()},
            signature=_signature(excludes_seen=seen is not None),
            input_example=_example(user_ids),
            pip_requirements=[f"{package}=={version(package)}" for package in _PACKAGES],
        )


def _signature(*, excludes_seen: bool) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    answer = [("user_id", "string"), ("rank", "integer"), ("item_id", "string"), ("score", "float")]
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "user_id")]),
        outputs=Schema([ColSpec(DataType[kind], name) for name, kind in answer]),
        params=ParamSchema(
            [ParamSpec("k", DataType.long, 10), ParamSpec("exclude_seen", DataType.boolean, excludes_seen)]
        ),
    )


def _example(user_ids: Sequence[str]) -> Any:
    import pandas as pd

    return pd.DataFrame({"user_id": list(user_ids[:_EXAMPLE_USERS])})


def _check_vectors(vectors: Vectors, ids: Sequence[str], kind: str) -> None:
    if vectors.ndim != 2 or len(vectors) != len(ids) or not len(ids):
        raise ValueError(f"{kind} vectors of shape {vectors.shape} for {len(ids)} ids: wanted one row per id")
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise ValueError(f"the vector of {kind} {ids[row]!r} holds NaN or infinity: the training has diverged")
    if len(set(ids)) != len(ids):
        raise ValueError(f"{len(ids) - len(set(ids))} {kind} ids occur twice: each vector needs an id of its own")


def _seen_rows(seen: tuple[Rows, Rows] | None, users: Sequence[str], items: Sequence[str]) -> dict[str, Any]:
    """The interactions in order of the user: `seen_items` of user row u are those from `seen_start[u]` on."""
    if seen is None:
        return {}
    user_rows, item_rows = seen
    for rows, limit, kind in ((user_rows, len(users), "user"), (item_rows, len(items), "item")):
        if len(rows) and (rows.min() < 0 or rows.max() >= limit):
            raise ValueError(f"seen: {kind} rows {rows.min()}…{rows.max()} where there are {limit} {kind}s")
    if len(user_rows) != len(item_rows):
        raise ValueError(f"seen: {len(user_rows)} user rows and {len(item_rows)} item rows")
    counts = np.bincount(user_rows, minlength=len(users))
    order = np.argsort(user_rows, kind="stable")
    return {
        "seen_start": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "seen_items": item_rows[order].astype(np.int32),
    }
