"""Feature vectors that exist already → `features/<modality>/`, joined to the items (or the users) by id."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from braidrec.config.prepare import FeaturesConfig
from braidrec.data.components import ComponentRows, component_rows, holds_components, is_list
from braidrec.data.description import DroppedEntry, FileEntry, Side, features_folder
from braidrec.data.errors import DatasetError
from braidrec.data.readers import TableFile, read_rows, require_columns, table_files
from braidrec.data.stages import Answer, fetch, run_tasks, share, shuffle_tasks
from braidrec.data.storage import Location
from braidrec.data.writer import DatasetWriter, part_name, vector_table, vectors_per_part, write_table

CHUNK_BYTES = 32 << 20
CHECK_SCHEMA = pa.schema([("source", pa.int64()), ("least", pa.int64()), ("most", pa.int64())])
PART_SCHEMA = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())])

_A: Mapping[Side, str] = {"item": "an item", "user": "a user"}

Vectors = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class VectorSource:
    """A matrix of vectors and the id of the item (or user) of each of its rows."""

    modality: str
    location: Location
    rows: int
    shape: tuple[int, ...]
    """Shape of one vector. Where components are lists, the number of them is 0 until all have been looked at."""
    source_dtype: str
    ids: TableFile | None
    """Where the id of each row is told; None: the row's number is the id."""
    id_column: str
    vector_column: str | None
    """For Parquet, which has ids and vectors in one file."""
    side: Side = "item"
    ragged: bool = False
    """Whether some vectors have more components than others."""

    @property
    def has_components(self) -> bool:
        """Whether the vectors are lists of components in Parquet."""
        return self.vector_column is not None and len(self.shape) > 1

    @property
    def dtype(self) -> str:
        """float16 stays, everything else becomes float32."""
        return "float16" if self.source_dtype == "float16" else "float32"

    def chunks(self) -> list[dict[str, Any]]:
        """Stretches of rows that one task reads."""
        if self.vector_column is not None:
            with self.location.filesystem.open_input_file(self.location.path) as source:
                groups = pq.ParquetFile(source).metadata
                sizes = [groups.row_group(group).num_rows for group in range(groups.num_row_groups)]
            starts = np.cumsum([0, *sizes])[:-1].tolist()
            return [
                {"start": start, "stop": start + size, "group": group}
                for group, (start, size) in enumerate(zip(starts, sizes, strict=True))
            ]
        size = max(1, CHUNK_BYTES // (int(np.prod(self.shape)) * np.dtype(self.source_dtype).itemsize))
        return [
            {"start": start, "stop": min(start + size, self.rows), "group": 0} for start in range(0, self.rows, size)
        ]

    def read(self, chunk: Mapping[str, Any]) -> Vectors:
        """The vectors of a chunk, [rows, *shape] in `dtype`; of ragged ones see `components`.

        Raises:
            DatasetError: a vector of another size, NaN or infinity.
        """
        if self.has_components:
            return self.components(chunk).numbers.reshape(-1, *self.shape)
        if self.vector_column is None:
            matrix = np.load(self.location.path, mmap_mode="r", allow_pickle=False)
            vectors = np.asarray(matrix[chunk["start"] : chunk["stop"]])
        else:
            vectors = self._read_lists(chunk)
        with np.errstate(over="ignore"):
            vectors = vectors.astype(self.dtype, copy=False)
        bad = ~np.isfinite(vectors.reshape(len(vectors), -1)).all(1)
        if bad.any():
            row = int(np.argmax(bad))
            values = vectors[row].reshape(-1)
            place = int(np.argmax(~np.isfinite(values)))
            raise DatasetError(
                f"{self.location.uri}, row {chunk['start'] + row}: the vector holds {values[place]} at place {place} "
                f"({int(bad.sum())} such rows among {len(bad)}); leave the {self.side} out of the file if it has no "
                "vector"
            )
        return vectors

    def components(self, chunk: Mapping[str, Any]) -> ComponentRows:
        """The components of a chunk whose vectors are lists of them."""
        return component_rows(
            self._column(chunk),
            dim=self.shape[-1],
            dtype=self.dtype,
            uri=self.location.uri,
            first_row=chunk["start"],
            side=self.side,
        )

    def _column(self, chunk: Mapping[str, Any]) -> Any:
        with self.location.filesystem.open_input_file(self.location.path) as source:
            table = pq.ParquetFile(source).read_row_group(chunk["group"], columns=[self.vector_column])
        return table.column(self.vector_column)

    def _read_lists(self, chunk: Mapping[str, Any]) -> Vectors:
        lists = self._column(chunk).combine_chunks()
        if pa.types.is_fixed_size_list(lists.type):
            lists = lists.cast(pa.list_(lists.type.value_type))
        lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != self.shape[0])
        if len(wrong):
            raise DatasetError(
                f"{self.location.uri}, row {chunk['start'] + int(wrong[0])}: a vector of {lengths[wrong[0]]} numbers, "
                f"the first one has {self.shape[0]}; all must have the same"
            )
        numbers = lists.flatten().cast(pa.float32() if self.dtype == "float32" else pa.float16())
        flat: Vectors = numbers.to_numpy(zero_copy_only=False)
        return flat.reshape(-1, self.shape[0])


def matrix_source(
    modality: str, path: str, *, ids: TableFile | None = None, id_column: str = "", side: Side = "item"
) -> VectorSource:
    """A `.npy` file; only its header is read.

    Raises:
        DatasetError: no such file, pickled objects, truncated, not a matrix of floating-point numbers.
    """
    location = Location.of(path)
    if not location.is_local:
        raise DatasetError(
            f"{location.uri}: a .npy is memory-mapped, so it must lie on a file system that all workers mount; "
            "copy it there or convert it to Parquet"
        )
    if not location.is_file():
        raise DatasetError(f"{location.uri}: no such file; it was named for modality {modality!r}")
    try:
        matrix = np.load(location.path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DatasetError(
            f"{location.uri}: not readable as a .npy of plain numbers ({error}); nothing is ever unpickled: save a "
            "float array with numpy.save(file, array.astype('float32'), allow_pickle=False)"
        ) from None
    if matrix.ndim < 2 or 0 in matrix.shape or matrix.dtype.name not in ("float16", "float32", "float64"):
        raise DatasetError(
            f"{location.uri}: shape {matrix.shape} of {matrix.dtype}; wanted [items, dim] or [items, "
            "components, dim] of float16, float32 or float64"
        )
    return VectorSource(
        modality=modality,
        location=location,
        rows=matrix.shape[0],
        shape=tuple(matrix.shape[1:]),
        source_dtype=matrix.dtype.name,
        ids=ids,
        id_column=id_column,
        vector_column=None,
        side=side,
    )


def configured_source(modality: str, config: FeaturesConfig, side: Side = "item") -> VectorSource:
    """The vectors that a configuration names."""
    if config.ids is not None:
        ids = _ids_file(config.ids)
        column = "id" if config.ids.endswith(".txt") else config.id_column
        return matrix_source(modality, config.vectors, ids=ids, id_column=column, side=side)
    (file,) = table_files([config.vectors], "parquet")
    kind: Any = require_columns(file, [config.id_column, config.vector_column])[config.vector_column]
    nested = holds_components(kind)
    if not nested and not (is_list(kind) and pa.types.is_floating(kind.value_type)):
        raise DatasetError(
            f"{file.location.uri}: column {config.vector_column!r} holds {kind}; wanted lists of floats, or lists of "
            "such lists where a vector has components"
        )
    first = next(read_rows(file, [config.vector_column]), None)
    vector = (first.table.column(config.vector_column)[0].as_py() or []) if first is not None else []
    dim = len(vector[0] or []) if nested and vector else len(vector)
    if not dim:
        raise DatasetError(f"{file.location.uri}: its first vector is missing or empty; leave out {side}s without one")
    number = kind.value_type.value_type if nested else kind.value_type
    with file.location.filesystem.open_input_file(file.location.path) as source:
        rows = pq.ParquetFile(source).metadata.num_rows
    return VectorSource(
        modality=modality,
        location=file.location,
        rows=rows,
        shape=(0, dim) if nested else (dim,),
        source_dtype="float16" if number == pa.float16() else "float32",
        ids=file,
        id_column=config.id_column,
        vector_column=config.vector_column,
        side=side,
    )


def _ids_file(path: str) -> TableFile:
    if path.endswith(".txt"):
        (file,) = table_files([path], "csv", delimiter="\x1f", names=["id"])
        return file
    (file,) = table_files([path])
    return file


def row_ids(source: VectorSource) -> Any:
    """The id of each row's item (or user), as strings.

    Raises:
        DatasetError: another number of ids than of vectors, an empty or a repeated id.
    """
    if source.ids is None:
        return pa.array(np.arange(source.rows)).cast(pa.large_string())
    stretches = [
        rows.table.column(source.id_column).cast(pa.large_string())
        for rows in read_rows(source.ids, [source.id_column])
    ]
    ids = pa.chunked_array(stretches, pa.large_string()).combine_chunks()
    name = source.ids.location.uri
    if len(ids) != source.rows:
        raise DatasetError(f"{name}: {len(ids)} ids, {source.location.uri} has {source.rows} vectors; one id a vector")
    if ids.null_count or pc.any(pc.equal(ids, "")).as_py():
        row = pc.index(pc.fill_null(ids, ""), "").as_py()
        raise DatasetError(f"{source.ids.row_name(row)}: empty id; name the {source.side} that the vector belongs to")
    repeated = pc.value_counts(ids).filter(pc.greater(pc.value_counts(ids).field("counts"), 1))
    if len(repeated):
        again = repeated[0]["values"].as_py()
        raise DatasetError(f"{name}: id {again!r} has several vectors; keep one per {source.side}")
    return ids


def check_vectors(sources: Sequence[VectorSource], ids: Mapping[Side, Any]) -> tuple[VectorSource, ...]:
    """Refuse bad vectors before other work is done: every number is looked at, ids are compared with the log's.

    Args:
        ids: every item id and every user id of the log (large_string).
    Returns:
        the sources; those whose vectors are lists of components know now how many there are.
    """
    for source in sources:
        _check_ids(source, ids[source.side])
    inputs = [{"source": place, **chunk} for place, source in enumerate(sources) for chunk in source.chunks()]
    least: dict[int, int] = {}
    most: dict[int, int] = {}
    for seen in run_tasks(inputs, partial(_check_chunk, sources=sources), CHECK_SCHEMA):
        place = seen["source"]
        least[place] = min(seen["least"], least.get(place, seen["least"]))
        most[place] = max(seen["most"], most.get(place, 0))
    return tuple(
        replace(source, shape=(most[place], source.shape[-1]), ragged=least[place] < most[place])
        if source.has_components
        else source
        for place, source in enumerate(sources)
    )


def _check_ids(source: VectorSource, log_ids: Any) -> None:
    ids = row_ids(source)
    missing = log_ids.filter(pc.invert(pc.is_in(log_ids, value_set=ids)))
    if source.ids is None and len(missing):
        raise DatasetError(
            f"{source.location.uri}: {source.rows} rows are for {source.side}s 0…{source.rows - 1}, the log has "
            f"{source.side} {missing[len(missing) - 1].as_py()!r}; the features belong to another log, or "
            "need a file with their ids"
        )
    if len(missing) == len(log_ids):
        raise DatasetError(
            f"{(source.ids or source).location.uri}: none of its ids ({ids[0].as_py()!r}, …) is {_A[source.side]} of "
            f"the log ({log_ids[0].as_py()!r}, …); both must use the same ids"
        )


def _check_chunk(entry: Answer, *, sources: Sequence[VectorSource]) -> Iterator[Answer]:
    source = sources[entry["source"]]
    if source.has_components:
        counts = source.components(entry).counts
        if len(counts):
            yield {"source": entry["source"], "least": int(counts.min()), "most": int(counts.max())}
    else:
        source.read(entry)
        yield {"source": entry["source"], "least": 1, "most": 1}


def write_vectors(source: VectorSource, ids: Any, writer: DatasetWriter) -> list[DroppedEntry]:
    """Write one modality for the items (users) of the data set, their ids in index order; say what was left out."""
    items = pc.index_in(row_ids(source), value_set=ids.cast(pa.large_string()))
    item_of_row = pc.fill_null(items, -1).to_numpy(zero_copy_only=False)
    present = np.sort(item_of_row[item_of_row >= 0])
    per_part = vectors_per_part(source.shape, np.dtype(source.dtype).itemsize)
    produce = partial(
        _rows_of_chunk,
        source=source,
        item_of_row=share(item_of_row),
        present=share(present),
        per_part=per_part,
    )
    consume = partial(_write_part, output=writer.location, source=source)
    parts = -(-len(present) // per_part)
    for answer in shuffle_tasks(
        source.chunks(), produce, consume, key="part", num_keys=parts, schema=PART_SCHEMA, fits_one_task=parts == 1
    ):
        writer.record(answer["path"], FileEntry(bytes=answer["bytes"], sha256=answer["sha256"]))
    provenance = {
        "kind": "imported",
        "file": source.location.name,
        "source_dtype": source.source_dtype,
        "joined_by": "row number" if source.ids is None else source.id_column,
    }
    writer.describe_modality(
        source.modality, source.shape, source.dtype, len(present), provenance, source.side, ragged=source.ragged
    )
    left_out = source.rows - len(present)
    reason = f"{source.modality}: the {source.side} is not in the data set"
    return [DroppedEntry(what="vectors", reason=reason, count=left_out)] if left_out else []


def _rows_of_chunk(
    entry: Answer, *, source: VectorSource, item_of_row: Any, present: Any, per_part: int
) -> Iterator[Any]:
    items = fetch(item_of_row)[entry["start"] : entry["stop"]]
    kept = items >= 0
    if source.ragged:
        lists = source.components(entry).lists(kept)
        table = pa.table({source.side: pa.array(items[kept].astype(np.int32)), "vector": lists})
    else:
        table = vector_table(items[kept], source.read(entry)[kept], source.side)
    parts = np.searchsorted(fetch(present), items[kept]) // per_part
    yield table.append_column("part", pa.array(parts.astype(np.int32)))


def _write_part(table: Any, *, output: Location, source: VectorSource) -> Answer:
    path = part_name(features_folder(source.side, source.modality), table.column("part")[0].as_py())
    items = table.column(source.side).to_numpy()
    if source.ragged:
        ordered = table.select([source.side, "vector"]).take(np.argsort(items)).combine_chunks()
        entry = write_table(output.child(path), ordered)
        return {"path": path, "bytes": entry.bytes, "sha256": entry.sha256}
    flat = table.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    order = np.argsort(items)
    vectors = flat.reshape(len(items), *source.shape)[order]
    entry = write_table(output.child(path), vector_table(items[order], vectors, source.side))
    return {"path": path, "bytes": entry.bytes, "sha256": entry.sha256}
