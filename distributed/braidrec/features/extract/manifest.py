"""Which medium belongs to which item: a manifest's files, joined to the items of a data set by id."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from braidrec.config.extract import DatasetSourceConfig, ExtractConfig, ExtractSourceConfig, TextFieldsConfig
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.readers import TableFile, read_rows, require_columns, table_files
from braidrec.data.storage import Location

Form = Literal["uri", "bytes", "text"]

NO_MEDIUM = "no medium"
"""The manifest has no row of an item, or nothing in it. It says so, so nothing is broken."""
NOT_UTF8 = "not UTF-8"
BYTES_AT_ONCE = 64
"""Rows of a Parquet file with media inside that are read together."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Files with a row an item, and how a row says what the item's medium is."""

    files: tuple[TableFile, ...]
    id_column: str
    by_index: bool
    """`id_column` holds the data set's own item indices."""
    form: Form
    columns: tuple[str, ...]
    text: TextFieldsConfig
    bases: tuple[Location | None, ...] = ()
    """By file: where its relative addresses start."""

    def batches(self, number: int, size: int, rows: NDArray[np.int64] | None = None) -> Iterator[tuple[int, Any]]:
        """Number of the first row, and a table of some rows of a file: its id column and `columns`.

        Args:
            rows: ascending numbers of the rows that are wanted; stretches of a file without any may be left out.
        """
        file = self.files[number]
        columns = list(dict.fromkeys([self.id_column, *self.columns]))
        if file.format == "parquet":
            yield from _parquet_batches(file, columns, min(size, BYTES_AT_ONCE) if self.form == "bytes" else size, rows)
            return
        for read in read_rows(file, columns):
            for start in range(0, read.table.num_rows, size):
                yield int(read.numbers[start]), read.table.slice(start, size)

    def values(self, table: Any) -> tuple[Any, Any]:
        """What is to be read of each row (large strings or large binary; null: nothing), and why not."""
        if self.form == "bytes":
            value = table.column(self.columns[0]).cast(pa.large_binary())
            return value, _reasons(pc.is_null(value), NO_MEDIUM)
        if self.form == "uri":
            value, broken = _as_utf8(table.column(self.columns[0]))
            value = pc.utf8_trim_whitespace(value)
            value = pc.if_else(pc.equal(value, ""), pa.scalar(None, pa.large_string()), value)
            absent = _reasons(pc.is_null(value), NO_MEDIUM)
            return value, pc.if_else(broken, pa.scalar(NOT_UTF8, pa.large_string()), absent)
        return self._joined(table)

    def _joined(self, table: Any) -> tuple[Any, Any]:
        nothing, empty = pa.scalar(None, pa.large_string()), pa.scalar("", pa.large_string())
        not_utf8, separator = (pa.scalar(text, pa.large_string()) for text in (NOT_UTF8, self.text.separator))
        joined = pa.array([""] * table.num_rows, pa.large_string())
        reasons = pa.nulls(table.num_rows, pa.large_string())
        for name in self.columns:
            text, broken = _as_utf8(table.column(name))
            reasons = pc.if_else(pc.and_(broken, pc.is_null(reasons)), not_utf8, reasons)
            text = pc.fill_null(pc.utf8_trim_whitespace(text), "")
            blank = pc.equal(text, "")
            if name in self.text.required:
                absent = pa.scalar(f"empty field {name}", pa.large_string())
                reasons = pc.if_else(pc.and_(blank, pc.is_null(reasons)), absent, reasons)
            if self.text.fill is not None:
                text = pc.if_else(blank, pa.scalar(self.text.fill, pa.large_string()), text)
            prefix = pa.scalar(self.text.prefixes.get(name, ""), pa.large_string())
            field = pc.if_else(pc.equal(text, ""), empty, pc.binary_join_element_wise(prefix, text, empty))
            # Two at a time: Arrow's own way of skipping nulls among many loses the rows in which all are null.
            both = pc.binary_join_element_wise(joined, field, separator)
            joined = pc.if_else(pc.equal(field, ""), joined, pc.if_else(pc.equal(joined, ""), field, both))
        blank = pc.and_(pc.equal(pc.utf8_trim_whitespace(joined), ""), pc.is_null(reasons))
        reasons = pc.if_else(blank, pa.scalar("empty text", pa.large_string()), reasons)
        return pc.if_else(pc.is_null(reasons), joined, nothing), reasons


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The rows that count."""

    items: tuple[NDArray[np.int32], ...]
    """By file: each row's item, −1 where the row does not count."""
    duplicates: tuple[tuple[int, str], ...]
    """Items with further rows, and which these are."""
    unknown: int
    """Rows of items that the data set does not have."""

    @cached_property
    def wanted(self) -> NDArray[np.int32]:
        """All items that have a row, ascending."""
        found: NDArray[np.int32] = np.sort(np.concatenate([rows[rows >= 0] for rows in self.items]))
        return found

    def rows_of(self, number: int, items: NDArray[np.int32]) -> NDArray[np.int64]:
        """Numbers of the rows of a file that are about some items, ascending."""
        return np.flatnonzero(np.isin(self.items[number], items)).astype(np.int64)


def open_manifest(config: ExtractConfig, folder: DatasetFolder) -> Manifest:
    """The manifest that an extraction names. Errors as for `open_source`."""
    return open_source(config.source, folder, name=config.modality, text=config.text)


def open_source(source: ExtractSourceConfig, folder: DatasetFolder, *, name: str, text: TextFieldsConfig) -> Manifest:
    """The manifest that a source names; headers are looked at, no rows.

    Args:
        name: of the data set's media, where the source names none.
        text: how columns become one text.
    Raises:
        DatasetError: no such file, column or media.
    """
    if isinstance(source, DatasetSourceConfig):
        return _own_manifest(source, folder, name=name, text=text)
    form, columns = next(
        (form, columns) for form, columns in _given(source.uri, source.bytes, source.text) if columns is not None
    )
    files = table_files(source.paths, source.format)
    for file in files:
        require_columns(file, [source.id_column, *columns])
    folder_of_all = None if source.folder is None else Location.of(source.folder)
    bases = tuple(folder_of_all or file.location.parent() for file in files)
    return Manifest(
        files=tuple(files), id_column=source.id_column, by_index=False, form=form, columns=columns, text=text,
        bases=bases,
    )  # fmt: skip


def plan_rows(manifest: Manifest, folder: DatasetFolder) -> Plan:
    """Join the rows to the items: one pass over the id columns, 4 bytes a row.

    Of several rows of an item the first counts.

    Raises:
        DatasetError: a row without an id, or no row of an item of the data set.
    """
    ids = None if manifest.by_index else folder.item_ids().cast(pa.large_string())
    seen = np.zeros(folder.num_items, np.bool_)
    places, duplicates, unknown, example = [], [], 0, None
    for file in manifest.files:
        stretches = [np.zeros(0, np.int32)]
        for rows in read_rows(file, [manifest.id_column]):
            column = rows.table.column(manifest.id_column)
            items = _items(column, ids, folder.num_items, file, rows.numbers)
            if example is None and (items < 0).any():
                example = _shown(column[int(np.argmax(items < 0))])
            unknown += int((items < 0).sum())
            first = np.zeros(len(items), np.bool_)
            first[np.unique(items, return_index=True)[1]] = True
            again = (items >= 0) & (~first | seen[items])
            duplicates += [(int(items[row]), file.row_name(int(rows.numbers[row]))) for row in np.flatnonzero(again)]
            items[again] = -1
            seen[items[items >= 0]] = True
            stretches.append(items)
        places.append(np.concatenate(stretches))
    if not seen.any():
        known = "" if ids is None else f" (such as {ids[0].as_py()!r})"
        raise DatasetError(
            f"{manifest.files[0].location.uri}: none of its rows (such as {manifest.id_column}={example!r}) is about "
            f"an item of the data set{known}; both must use the same ids: look at source.id_column"
        )
    return Plan(items=tuple(places), duplicates=tuple(duplicates), unknown=unknown)


def _given(uri: str | None, content: str | None, text: tuple[str, ...]) -> Iterator[tuple[Form, Any]]:
    yield "uri", (uri,) if uri is not None else None
    yield "bytes", (content,) if content is not None else None
    yield "text", text or None


def _own_manifest(source: DatasetSourceConfig, folder: DatasetFolder, *, name: str, text: TextFieldsConfig) -> Manifest:
    if source.text:
        (file,) = table_files([folder.location.child("items.parquet").uri])
        require_columns(file, source.text)
        return Manifest(files=(file,), id_column="item", by_index=True, form="text", columns=source.text, text=text)
    name = source.media or name
    media = folder.description.media
    if name not in media:
        raise DatasetError(
            f"{folder.path}: no media {name!r}; it has {sorted(media)}. Name one in source.media, columns of "
            "items.parquet in source.text, or a table with --set source.kind=manifest"
        )
    (file,) = table_files([folder.location.child(f"media/{name}.parquet").uri])
    column = media[name].column
    return Manifest(
        files=(file,), id_column="item", by_index=True, form=column, columns=(column,), text=text,
        bases=(folder.location,),
    )  # fmt: skip


def _items(column: Any, ids: Any, num_items: int, file: TableFile, numbers: Any) -> NDArray[np.int32]:
    absent = pc.equal(pc.fill_null(_as_text(column), ""), "").to_numpy(zero_copy_only=False)
    if absent.any():
        row = int(np.argmax(absent))
        raise DatasetError(f"{file.row_name(int(numbers[row]))}: no item id; mend or remove the row")
    if ids is None:
        own: NDArray[np.int32] = column.to_numpy().astype(np.int32)
        return np.where((own >= 0) & (own < num_items), own, np.int32(-1))
    found = pc.index_in(_as_text(column), value_set=ids)
    items: NDArray[np.int32] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int32)
    return items


def _as_text(column: Any) -> Any:
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = _joined_lists(column)
    return column.cast(pa.large_string())


def _as_utf8(column: Any) -> tuple[Any, Any]:
    """The column as text, null where its bytes are none, and where that is."""
    kind = column.type
    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    # a column that says it is text can hold anything all the same: only a cast from bytes looks
    raw = (column if is_binary else _as_text(column)).cast(pa.large_binary())
    try:
        return raw.cast(pa.large_string()), pa.array(np.zeros(len(column), np.bool_))
    except pa.ArrowInvalid:
        text = raw.to_pylist()  # a few rows, and only where one of them is broken
    broken = [value is not None and not _is_utf8(value) for value in text]
    good = [None if bad else value for bad, value in zip(broken, text, strict=True)]
    return pa.array(good, pa.large_binary()).cast(pa.large_string()), pa.array(broken)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _joined_lists(column: Any) -> Any:
    """Lists as texts with ", " between their elements; elements that are null are left out."""
    elements, owners = pc.list_flatten(column), pc.list_parent_indices(column).to_numpy()
    there = elements.is_valid()
    counts = np.bincount(owners[there.to_numpy(zero_copy_only=False)], minlength=len(column))
    offsets = pa.array(np.r_[0, np.cumsum(counts)].astype(np.int32))
    texts = elements.filter(there).cast(pa.string())
    lists = pa.ListArray.from_arrays(offsets, texts, mask=column.is_null())
    return pc.binary_join(lists, ", ")


def _shown(value: Any) -> str:
    """A value of a column as text, whatever it holds."""
    plain = value.cast(pa.binary()).as_py() if pa.types.is_string(value.type) else value.as_py()
    return plain.decode("utf-8", "replace") if isinstance(plain, bytes) else str(plain)


def told_by_manifest(reason: str) -> str:
    """What the rejects table says of an item that the manifest itself has no medium for."""
    if reason == NOT_UTF8:
        return "the manifest's bytes are not UTF-8; convert them"
    return "the manifest has nothing for this item" if reason == NO_MEDIUM else f"{reason} in the manifest"


def _reasons(which: Any, reason: str) -> Any:
    return pc.if_else(which, pa.scalar(reason, pa.large_string()), pa.scalar(None, pa.large_string()))


def _parquet_batches(
    file: TableFile, columns: list[str], size: int, rows: NDArray[np.int64] | None
) -> Iterator[tuple[int, Any]]:
    try:
        with file.location.filesystem.open_input_file(file.location.path) as source:
            parquet = pq.ParquetFile(source)
            first = 0
            for group in range(parquet.num_row_groups):
                end = first + parquet.metadata.row_group(group).num_rows
                if rows is not None and np.searchsorted(rows, first) == np.searchsorted(rows, end):
                    first = end
                    continue
                for batch in parquet.iter_batches(batch_size=size, row_groups=[group], columns=columns):
                    yield first, pa.Table.from_batches([batch])
                    first += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{file.location.uri}: not readable as Parquet ({error}); copy it again") from None
