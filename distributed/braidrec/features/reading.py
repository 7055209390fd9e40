"""The feature vectors of a dataset folder → a table on the node's disk, read by Ray Data where Ray runs."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from braidrec.data.description import DESCRIPTION_FILE, Side, features_folder
from braidrec.data.errors import DatasetError
from braidrec.data.folder import PREPARE_AGAIN, DatasetFolder
from braidrec.data.stages import Answer, stream_tables
from braidrec.data.storage import Location
from braidrec.features.build import PART_COLUMN, ROW_COLUMN, VECTOR_COLUMN, TableLayout, build_feature_table
from braidrec.features.table import FeatureTable

BATCH_BYTES = 16 << 20


def load_feature_table(
    folder: DatasetFolder, modality: str, *, cache: Path, side: Side = "item", use_ray: bool = False
) -> FeatureTable:
    """The table of a modality of the data set. One process of a node builds it, see `mapped.once_per_node`.

    Args:
        folder: the data set.
        modality: its name.
        cache: the node's cache folder.
        side: of the items or of the users.
        use_ray: let Ray Data read, a task a part file, in the session that this process is connected to. Otherwise
            this process reads the files one after the other.
    Raises:
        DatasetError: no such modality, or vectors that cannot be used.
    """
    parts = folder.parts(features_folder(side, modality))
    files = [folder.location.child(part) for part in parts]
    hashes = "".join(folder.description.files[part].sha256 for part in parts)
    layout = _layout(folder, modality, side, files)
    blocks = ray_blocks(files, layout) if use_ray else local_blocks(files, layout)
    key = hashlib.sha256(hashes.encode()).hexdigest()
    return build_feature_table(blocks, cache=cache, key=key, layout=layout)


def local_blocks(files: Iterable[Location], layout: TableLayout) -> Iterator[Any]:
    """The rows of the files in order, a few MiB at a time."""
    for part, file in enumerate(files):
        yield from _blocks_of(file, part, layout)


def ray_blocks(files: Iterable[Location], layout: TableLayout) -> Iterator[Any]:
    """The rows of the files, read by Ray Data, a task a file, in whatever order they are ready."""
    places = list(files)
    inputs = [{PART_COLUMN: part} for part in range(len(places))]
    return stream_tables(inputs, partial(_read_part, files=places, layout=layout), _schema(layout))


def _layout(folder: DatasetFolder, modality: str, side: Side, files: Iterable[Location]) -> TableLayout:
    described = folder.modality(modality, side)
    return TableLayout(
        name=modality,
        side=side,
        num_rows=folder.num_items if side == "item" else folder.num_users,
        shape=described.shape,
        dtype=described.dtype,
        num_vectors=described.num_vectors,
        origin=f"{folder.path}/{features_folder(side, modality)}",
        parts=[file.uri for file in files],
        provenance={"kind": "data set", "modality": modality, "vectors": described.provenance},
        ragged=described.ragged,
    )


def _schema(layout: TableLayout) -> Any:
    number = pa.float16() if layout.dtype == "float16" else pa.float32()
    vector = pa.list_(number) if layout.ragged else pa.list_(number, layout.dim)
    columns = [(layout.side, pa.int32()), (VECTOR_COLUMN, vector), (PART_COLUMN, pa.int32()), (ROW_COLUMN, pa.int64())]
    return pa.schema(columns)


def _read_part(entry: Answer, *, files: list[Location], layout: TableLayout) -> Iterator[Any]:
    yield from _blocks_of(files[entry[PART_COLUMN]], entry[PART_COLUMN], layout)


def _blocks_of(file: Location, part: int, layout: TableLayout) -> Iterator[Any]:
    """Stretches of one file, each row with its place in it."""
    schema, row = _schema(layout), 0
    size = max(1, BATCH_BYTES // (layout.dim * np.dtype(layout.dtype).itemsize))
    try:
        with file.filesystem.open_input_file(file.path) as source:
            parquet = pq.ParquetFile(source)
            _check_columns(file, parquet.schema_arrow, layout)
            for batch in parquet.iter_batches(batch_size=size, columns=[layout.side, VECTOR_COLUMN]):
                count = batch.num_rows
                places = {
                    PART_COLUMN: pa.array(np.full(count, part, np.int32)),
                    ROW_COLUMN: pa.array(np.arange(row, row + count)),
                }
                columns = {name: batch.column(name) for name in (layout.side, VECTOR_COLUMN)}
                yield pa.table({**columns, **places}).cast(schema)
                row += count
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{file.uri}: not readable as Parquet ({error}); {PREPARE_AGAIN}") from None


def _check_columns(file: Location, found: Any, layout: TableLayout) -> None:
    for wanted in _schema(layout):
        if wanted.name in (PART_COLUMN, ROW_COLUMN):
            continue
        if wanted.name not in found.names:
            raise DatasetError(
                f"{file.uri}: modality {layout.name!r}: no column {wanted.name!r}; it has {found.names}; "
                f"{PREPARE_AGAIN}"
            )
        kind = found.field(wanted.name).type
        if not _is_same(kind, wanted.type):
            raise DatasetError(
                f"{file.uri}: modality {layout.name!r}: column {wanted.name!r} holds {kind}, {DESCRIPTION_FILE} says "
                f"{wanted.type}; {PREPARE_AGAIN}"
            )


def _is_same(kind: Any, wanted: Any) -> bool:
    """Whatever the numbers in a list are called."""
    if pa.types.is_fixed_size_list(wanted) and pa.types.is_fixed_size_list(kind):
        return bool((kind.value_type, kind.list_size) == (wanted.value_type, wanted.list_size))
    if pa.types.is_list(wanted) and pa.types.is_list(kind):
        return bool(kind.value_type == wanted.value_type)
    return bool(kind == wanted)
