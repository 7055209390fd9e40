"""Edges between items, or between users, given by their own ids: what another system knows of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from braidrec.config.prepare import RelationConfig
from braidrec.data.description import DroppedEntry
from braidrec.data.errors import DatasetError
from braidrec.data.readers import Rows, TableFile, read_rows, require_columns, table_files
from braidrec.data.rows import floats
from braidrec.data.writer import DatasetWriter


@dataclass(frozen=True, kw_only=True)
class EdgeSource:
    """Files of one relation, whose columns are there."""

    name: str
    files: tuple[TableFile, ...]
    columns: tuple[str, ...]
    """Source, destination, and the weight where there is one."""
    between: Literal["items", "users"]


def configured_edges(name: str, config: RelationConfig) -> EdgeSource:
    """The files that a configuration names.

    Raises:
        DatasetError: a missing file or column.
    """
    files = table_files(config.paths, config.format)
    columns = (config.source, config.destination, *([config.weight] if config.weight is not None else []))
    for file in files:
        require_columns(file, columns)
    return EdgeSource(name=name, files=tuple(files), columns=columns, between=config.between)


def write_edges(source: EdgeSource, ids: Any, writer: DatasetWriter) -> list[DroppedEntry]:
    """Write one relation between what is in the data set; say what was left out.

    Left out are edges of which an end is not in the data set, from a thing to itself, and all but the first of those
    that join the same two in the same direction.

    Args:
        ids: of the items (users) of the data set, in index order.
    Raises:
        DatasetError: an end without an id, or a weight that is no finite number of at least 0, naming the row.
    """
    known = ids.cast(pa.large_string())
    stretches = [
        _stretch(file, rows, source, known)
        for file in source.files
        for rows in read_rows(file, source.columns, numbers=source.columns[2:])
    ]
    ends = np.concatenate([np.empty((0, 2), np.int32), *(found for found, _ in stretches)])
    weights = np.concatenate([np.empty(0, np.float32), *(found for _, found in stretches)])
    inside = (ends >= 0).all(axis=1)
    loops = inside & (ends[:, 0] == ends[:, 1])
    places = np.flatnonzero(inside & ~loops)
    pairs = ends[places].astype(np.int64) @ np.array([len(known), 1])
    kept = places[np.sort(np.unique(pairs, return_index=True)[1])]
    has_weight = len(source.columns) > 2
    writer.write_relation(
        source.name, ends[kept, 0], ends[kept, 1], source.between, weights[kept] if has_weight else None
    )
    left_out = {
        f"an end is not among the {source.between} of the data set": int((~inside).sum()),
        "from a thing to itself": int(loops.sum()),
        "given more than once": len(places) - len(kept),
    }
    return _dropped(source.name, left_out)


def _dropped(name: str, left_out: Mapping[str, int]) -> list[DroppedEntry]:
    return [
        DroppedEntry(what="edges", reason=f"{name}: {reason}", count=count)
        for reason, count in left_out.items()
        if count
    ]


def _stretch(
    file: TableFile, rows: Rows, source: EdgeSource, known: Any
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """`[n, 2]` indices of both ends, −1 for one that is not known, and `[n]` weights."""
    ends = []
    for column in source.columns[:2]:
        values = rows.table.column(column).cast(pa.large_string())
        empty = pc.equal(pc.fill_null(values, ""), "").to_numpy(zero_copy_only=False)
        if empty.any():
            raise DatasetError(f"{file.row_name(rows.numbers[empty.argmax()])}: no id in column {column!r}")
        ends.append(pc.fill_null(pc.index_in(values, value_set=known), -1).to_numpy(zero_copy_only=False))
    weights = np.ones(rows.table.num_rows, np.float32)
    if len(source.columns) > 2:
        weights = _weights(file, rows, source.columns[2])
    return np.stack(ends, axis=1).astype(np.int32), weights


def _weights(file: TableFile, rows: Rows, column: str) -> npt.NDArray[np.float32]:
    values = rows.table.column(column).combine_chunks()
    found, malformed = floats(values)
    bad = malformed | ~np.isfinite(found) | (found < 0)
    if bad.any():
        row = int(bad.argmax())
        raise DatasetError(
            f"{file.row_name(rows.numbers[row])}: {column}={values[row].as_py()!r} is no finite number of at least 0"
        )
    return found.astype(np.float32)
