"""Prepared media in Arrow columns between tasks: plain bytes with shape and type, never a pickle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from braidrec.features.extract.encoders.contract import Prepared
from braidrec.features.extract.ledger import HASH_BYTES

TEXT = "text"
STATE_SCHEMA = pa.schema([("item", pa.int32()), ("source", pa.binary(HASH_BYTES)), ("status", pa.string()),
                          ("error", pa.string())])  # fmt: skip
"""`status`: null where something is to be encoded, "kept" where it is done already, else why it is rejected."""
MEDIA_FIELDS = [("data", pa.large_binary()), ("shape", pa.list_(pa.int64())), ("kind", pa.string())]


def media_columns(prepared: Sequence[Prepared | None]) -> dict[str, Any]:
    """Arrays and texts as three columns."""
    rows: list[tuple[Any, Any, Any]] = []
    for value in prepared:
        if value is None:
            rows.append((None, None, None))
        elif isinstance(value, str):
            rows.append((value.encode(), None, TEXT))
        else:
            array = np.ascontiguousarray(value)
            # the array's own memory: a copy to bytes would be one more of every image
            own: Any = array.reshape(-1)
            rows.append((memoryview(own).cast("B"), list(array.shape), array.dtype.str))
    return {name: pa.array([row[place] for row in rows], kind) for place, (name, kind) in enumerate(MEDIA_FIELDS)}


def media_of(table: Any) -> list[Prepared]:
    """The arrays and texts of a table without gaps. Arrays look into the table's memory."""
    kinds, shapes = table.column("kind").to_pylist(), table.column("shape").to_pylist()
    found: list[Prepared] = []
    for value, shape, kind in zip(table.column("data"), shapes, kinds, strict=True):
        if kind == TEXT:
            found.append(value.as_py().decode())
        else:
            found.append(np.frombuffer(value.as_buffer(), np.dtype(kind)).reshape(shape))
    return found


def vector_column(vectors: Sequence[Any]) -> Any:
    """Vectors, or None where there is none, as lists of float32."""
    present = [vector for vector in vectors if vector is not None]
    flat = np.concatenate(present) if present else np.zeros(0, np.float32)
    lengths = np.array([0 if vector is None else len(vector) for vector in vectors])
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int32)
    mask = pa.array([vector is None for vector in vectors], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat.astype(np.float32)), mask=mask)
