"""Blocks of vectors, from wherever → a feature table: checked, joined by id, written where they belong."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from braidrec.data.description import Side
from braidrec.data.errors import DatasetError
from braidrec.data.ragged import fits, padded
from braidrec.features.table import FORMAT, FeatureTable, store_table

VECTOR_COLUMN = "vector"
PART_COLUMN = "part"
ROW_COLUMN = "row"


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """What a table will hold.

    Attributes:
        name: the modality.
        side: whose vectors; also the name of the column with their indices.
        num_rows: items (users) of the data set.
        shape: of one vector.
        dtype: "float16" or "float32".
        num_vectors: how many must come; None: as many as there are.
        origin: where they come from, for messages.
        parts: names of the files that the column `part` counts.
        provenance: for a run's record.
        ragged: a row has as many components as it has, `shape[0]` at most: its list is so many times `shape[1]` long.
    """

    name: str
    side: Side
    num_rows: int
    shape: tuple[int, ...]
    dtype: str
    origin: str
    num_vectors: int | None = None
    parts: Sequence[str] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    ragged: bool = False

    @property
    def dim(self) -> int:
        return int(np.prod(self.shape))


def build_feature_table(blocks: Iterable[Any], *, cache: Path, key: str, layout: TableLayout) -> FeatureTable:
    """The table of one modality, built from `blocks` if the node does not have it yet.

    Each row goes to the place that its id names, so blocks may come in any order and from anywhere: Ray Data's batches,
    a file's record batches, tables made by hand. One block is held at a time.

    Args:
        blocks: pyarrow tables with the columns `item` (or `user`; integers) and `vector` (lists of `layout.dtype`), and
            optionally `part` and `row`, which say where in the files of `layout.parts` a row stood. A generator is not
            started if the table is there already.
        cache: the node's cache folder.
        key: identifies the vectors: a hash of the files.
        layout: what they must be.
    Raises:
        DatasetError: a column that is missing or holds something else, an id that is out of range, missing or there
            twice, a vector that is missing, has another size or holds NaN or infinity, or too few vectors. The message
            names the file (or the block), the modality and the row.
    Warns:
        UserWarning: the node's copy is damaged. It is built again.
    """

    def fill(values: NDArray[Any], present: NDArray[np.bool_], lengths: NDArray[np.int32]) -> Mapping[str, Any]:
        for number, block in enumerate(blocks):
            _Block(block, number, layout).write(values, present, lengths)
        seen = int(present.sum())
        if layout.num_vectors is not None and seen != layout.num_vectors:
            raise DatasetError(
                f"{layout.origin}: {seen} vectors of modality {layout.name!r}, {layout.num_vectors} are wanted; rows "
                "are missing or came twice: prepare the data set again"
            )
        return layout.provenance

    identity = f"{FORMAT}:{key}:{layout.side}:{layout.num_rows}:{layout.shape}:{layout.dtype}"
    identity += ":ragged" if layout.ragged else ""
    return store_table(
        cache,
        hashlib.sha256(identity.encode()).hexdigest(),
        fill,
        name=layout.name,
        side=layout.side,
        num_rows=layout.num_rows,
        shape=layout.shape,
        dtype=layout.dtype,
        ragged=layout.ragged,
    )


class _Block:
    """Some rows on their way into the table."""

    def __init__(self, table: Any, number: int, layout: TableLayout) -> None:
        self.table = table
        self.number = number
        self.layout = layout

    def write(self, values: NDArray[Any], present: NDArray[np.bool_], lengths: NDArray[np.int32]) -> None:
        """Put the rows into their places, after all checks."""
        if not self.table.num_rows:
            return
        ids = self._ids(present)
        vectors, lengths[ids] = self._vectors()
        values[ids] = vectors
        present[ids] = True

    def _ids(self, present: NDArray[np.bool_]) -> NDArray[np.int64]:
        side, count = self.layout.side, self.layout.num_rows
        column = self._column(side)
        if not pa.types.is_integer(column.type):
            raise self._error(None, f"column {side!r} holds {column.type}; wanted int32")
        self._refuse(column.is_null(), lambda row: f"no {side}")
        ids: NDArray[np.int64] = column.to_numpy(zero_copy_only=False).astype(np.int64)
        self._refuse((ids < 0) | (ids >= count), lambda row: f"{side}={ids[row]} is outside 0…{count - 1}")
        order = np.argsort(ids, kind="stable")
        again = np.zeros(len(ids), np.bool_)
        again[order[1:]] = ids[order[1:]] == ids[order[:-1]]
        self._refuse(again | present[ids], lambda row: f"{side}={ids[row]} has a vector already")
        return ids

    def _vectors(self) -> tuple[NDArray[Any], NDArray[np.int32]]:
        """`[n, dim]`, zeros after the last component, and how many components each has."""
        dim, dtype = self.layout.dim, self.layout.dtype
        column = self._column(VECTOR_COLUMN)
        if isinstance(column.type, pa.BaseExtensionType):
            # Ray Data and Arrow have tensor types, which are lists underneath.
            column = column.storage
        if not (pa.types.is_fixed_size_list(column.type) or _is_list(column.type)):
            raise self._error(None, f"column {VECTOR_COLUMN!r} holds {column.type}; wanted lists of {dtype}")
        kind = column.type.value_type
        if not pa.types.is_floating(kind) or kind.to_pandas_dtype() != np.dtype(dtype):
            raise self._error(None, f"vectors of {kind}; wanted {dtype}")
        self._refuse(column.is_null(), lambda row: "no vector; leave the row out")
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        flat: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
        if self.layout.ragged:
            one = self.layout.shape[-1]
            self._refuse(
                ~fits(lengths, self.layout.shape),
                lambda row: f"{lengths[row]} numbers; wanted one to {dim // one} components of {one} each",
            )
            vectors = padded(flat, lengths, dim)
        else:
            self._refuse(lengths != dim, lambda row: f"a vector of {lengths[row]} numbers; wanted {dim}")
            vectors = flat.reshape(-1, dim)
        finite = np.isfinite(vectors)
        self._refuse(~finite.all(1), lambda row: _not_finite(vectors[row], finite[row]))
        return vectors, (lengths // self.layout.shape[-1]).astype(np.int32)

    def _column(self, name: str) -> Any:
        if name not in self.table.column_names:
            raise self._error(None, f"no column {name!r}; it has {self.table.column_names}")
        column = self.table.column(name).combine_chunks()
        return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column

    def _refuse(self, bad: Any, why: Any) -> None:
        wrong = np.flatnonzero(bad.to_numpy(zero_copy_only=False) if isinstance(bad, pa.Array) else bad)
        if len(wrong):
            raise self._error(int(wrong[0]), why(int(wrong[0])))

    def _error(self, row: int | None, what: str) -> DatasetError:
        place = f"{self.layout.origin}, block {self.number}"
        if PART_COLUMN in self.table.column_names and self.layout.parts:
            place = self.layout.parts[self.table.column(PART_COLUMN)[row or 0].as_py()]
            row = None if row is None else self.table.column(ROW_COLUMN)[row].as_py()
        stands = "" if row is None else f", row {row}"
        return DatasetError(f"{place}{stands}: modality {self.layout.name!r}: {what}")


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _not_finite(vector: NDArray[Any], finite: NDArray[np.bool_]) -> str:
    place = int(np.argmin(finite))
    return f"the vector holds {vector[place]} at place {place}; leave the row out if there is no vector"
