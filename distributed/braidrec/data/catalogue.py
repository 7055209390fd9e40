"""Tables about the items → further columns of `items.parquet`, `media/text.parquet` and `media/image.parquet`."""

import ast
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from braidrec.config.prepare import ItemsConfig, MediaFolderConfig
from braidrec.data.description import DroppedEntry, FileEntry, MediaDescription
from braidrec.data.errors import DatasetError
from braidrec.data.readers import TableFile, read_rows, require_columns, table_files
from braidrec.data.rows import POSITION_BITS
from braidrec.data.stages import Answer, fetch, run_tasks, share, sorted_batches
from braidrec.data.storage import Location, read_parquet
from braidrec.data.writer import DatasetWriter, write_table

RECORDS_PER_FILE = 100_000
ROWS_PER_MEDIA_GROUP = 1 << 14
ANSWER_SCHEMA = pa.schema([("file", pa.string()), ("rows", pa.int64())])
PARSE_ERRORS = (ValueError, SyntaxError, RecursionError, MemoryError)

Fields = tuple[str, ...]
"""Alternatives: the first field that a record has counts."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Which fields of a record mean what."""

    id: Fields
    keep: Mapping[str, Fields] = field(default_factory=dict)
    """Columns of `items.parquet`."""
    text: tuple[Fields, ...] = ()
    """Joined, one a line, to the item's text."""
    image: Fields = ()
    nested: bool = False
    """Records are nested JSON, or the Python literals of the 2014 dump."""

    @property
    def columns(self) -> list[str]:
        """String columns of a parsed catalogue."""
        return [
            *(f"keep.{name}" for name in self.keep),
            *(["text"] if self.text else []),
            *(["image"] if self.image else []),
        ]


AMAZON_LAYOUT = Layout(
    id=("parent_asin", "asin"),
    keep={"title": ("title",), "brand": ("brand", "store"), "categories": ("categories", "category")},
    text=(("title",), ("brand", "store"), ("categories", "category"), ("features", "feature"), ("description",)),
    image=("imUrl", "imageURLHighRes", "imageURL", "images"),
    nested=True,
)


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """Files about the items."""

    files: tuple[TableFile, ...]
    layout: Layout


@dataclass(frozen=True, kw_only=True)
class ParsedCatalogue:
    """The catalogue's records of known items, in the staging folder."""

    files: tuple[str, ...]
    layout: Layout


def configured_catalogue(config: ItemsConfig) -> Catalogue:
    """The item table that a configuration names.

    Raises:
        DatasetError: no such file or column.
    """
    layout = Layout(
        id=(config.id_column,),
        keep={name: (name,) for name in config.keep},
        text=tuple((name,) for name in config.text),
        image=(config.image,) if config.image is not None else (),
    )
    files = table_files(config.paths, config.format)
    for file in files:
        require_columns(file, _table_fields(layout))
    return Catalogue(files=tuple(files), layout=layout)


def parse_catalogue(catalogue: Catalogue, item_ids: Any, *, staging: Location) -> ParsedCatalogue:
    """Read all records and keep those of items that the log knows.

    Args:
        item_ids: every item id of the log, in the order in which later stages number them.
    Raises:
        DatasetError: damaged files, records without an id, or none about an item of the log.
    """
    task = partial(_parse_file, catalogue=catalogue, item_ids=share(item_ids), staging=staging)
    answers = list(run_tasks([{"number": n} for n in range(len(catalogue.files))], task, ANSWER_SCHEMA))
    if not sum(answer["rows"] for answer in answers):
        raise DatasetError(
            f"{catalogue.files[0].location.uri}: describes no item of the log (such as {item_ids[0].as_py()!r}); both "
            "must use the same ids: look at the id column"
        )
    return ParsedCatalogue(files=tuple(sorted(answer["file"] for answer in answers)), layout=catalogue.layout)


def write_catalogue(
    parsed: ParsedCatalogue, final_index: Any, *, staging: Location, writer: DatasetWriter
) -> tuple[dict[str, Any], list[DroppedEntry]]:
    """Write the media files; give the further columns of `items.parquet` and what was left out.

    Args:
        final_index: int32 array from the numbering of `parse_catalogue` to the data set's, −1 for absent items.
    """
    layout = parsed.layout
    produce = partial(_final_records, staging=staging, final_index=share(final_index))
    sinks = {name: _MediaSink(writer, name) for name in ("text", "image") if name in layout.columns}
    kept: list[Any] = []
    last, repeated = -1, 0
    for batch in sorted_batches([{"file": file} for file in parsed.files], produce, ["item", "position"]):
        if not batch.num_rows:
            continue
        items = batch.column("item").to_numpy()
        is_first = np.r_[items[:1] != last, items[1:] != items[:-1]]
        repeated += int((~is_first).sum())
        last = int(items[-1])
        batch = batch.filter(pa.array(is_first))
        kept.append(batch.select(["item", *(f"keep.{name}" for name in layout.keep)]))
        for sink in sinks.values():
            sink.add(batch)
    for sink in sinks.values():
        sink.close()
    reason = "the catalogue describes an item again; its first record counts"
    dropped = [DroppedEntry(what="records", reason=reason, count=repeated)] if repeated else []
    return _item_columns(kept, layout, int(final_index.max()) + 1), dropped


def write_media_folder(name: str, config: MediaFolderConfig, item_ids: Any, writer: DatasetWriter) -> None:
    """`media/<name>.parquet` with the address of each item's file, found by its name.

    Raises:
        DatasetError: no such folder, or no file in it is named by an item's id.
    """
    folder = Location.of(config.folder)
    if not folder.is_folder():
        raise DatasetError(f"{folder.uri}: no such folder; it was named for media.{name}")
    stems, uris = [], []
    for relative in folder.files():
        suffix = next((suffix for suffix in config.suffixes if relative.endswith(suffix)), None)
        if suffix is not None:
            stems.append(relative.removesuffix(suffix))
            uris.append(f"{folder.uri}/{relative}")
    items = pc.index_in(pa.array(stems, pa.large_string()), value_set=item_ids.cast(pa.large_string()))
    table = pa.table({"item": items, "uri": pa.array(uris, pa.string())}).drop_null().sort_by("item")
    if not table.num_rows:
        raise DatasetError(
            f"{folder.uri}: none of its {len(stems)} files ending in {list(config.suffixes)} is named by an item's id, "
            f"such as {item_ids[0].as_py()}{config.suffixes[0]}"
        )
    path = f"media/{name}.parquet"
    writer.record(path, write_table(writer.location.child(path), table))
    writer.media[name] = MediaDescription(rows=table.num_rows, column="uri")


class _MediaSink:
    """One media file, in row groups of fixed size, so that its bytes do not depend on how Ray cut its blocks."""

    def __init__(self, writer: DatasetWriter, name: str) -> None:
        self.writer = writer
        self.name = name
        self.column = "text" if name == "text" else "uri"
        self.path = f"media/{name}.parquet"
        self.location = writer.location.child(self.path)
        self.schema = pa.schema([("item", pa.int32()), (self.column, pa.string())])
        self.location.filesystem.create_dir(self.location.path.rpartition("/")[0], recursive=True)
        self.stream = self.location.filesystem.open_output_stream(self.location.path)
        self.parquet = pq.ParquetWriter(self.stream, self.schema, compression="zstd")
        self.buffer = self.schema.empty_table()
        self.rows = 0

    def add(self, batch: Any) -> None:
        rows = pa.table({"item": batch.column("item"), self.column: batch.column(self.name)}, schema=self.schema)
        self.buffer = pa.concat_tables([self.buffer, rows.filter(pc.is_valid(rows.column(self.column)))])
        while self.buffer.num_rows >= ROWS_PER_MEDIA_GROUP:
            self._write(self.buffer.slice(0, ROWS_PER_MEDIA_GROUP))
            self.buffer = self.buffer.slice(ROWS_PER_MEDIA_GROUP)

    def close(self) -> None:
        self._write(self.buffer)
        self.parquet.close()
        self.stream.close()
        entry = FileEntry(bytes=self.location.size(), sha256=self.location.sha256())
        self.writer.record(self.path, entry)
        self.writer.media[self.name] = MediaDescription(rows=self.rows, column="text" if self.name == "text" else "uri")

    def _write(self, rows: Any) -> None:
        self.parquet.write_table(rows.combine_chunks())
        self.rows += rows.num_rows


def _parse_file(entry: Answer, *, catalogue: Catalogue, item_ids: Any, staging: Location) -> Iterator[Answer]:
    file, layout = catalogue.files[entry["number"]], catalogue.layout
    parse = _nested_records if layout.nested else _table_records
    for part, (first, table) in enumerate(parse(file, layout)):
        places = pc.index_in(table.column("id").cast(pa.large_string()), value_set=fetch(item_ids))
        positions = (entry["number"] << POSITION_BITS) + first + np.arange(table.num_rows, dtype=np.int64)
        records = pa.table(
            {"item": places, "position": positions, **{name: table.column(name) for name in layout.columns}}
        )
        records = records.filter(pc.is_valid(records.column("item")))
        path = f"catalogue/file-{entry['number']:05d}-{part:05d}.parquet"
        write_table(staging.child(path), records)
        yield {"file": path, "rows": records.num_rows}


def _table_fields(layout: Layout) -> list[str]:
    fields = [*layout.id, *(name for names in layout.keep.values() for name in names)]
    return list(dict.fromkeys([*fields, *(name for names in layout.text for name in names), *layout.image]))


def _table_records(file: TableFile, layout: Layout) -> Iterator[tuple[int, Any]]:
    for rows in read_rows(file, _table_fields(layout)):
        if not len(rows.numbers):
            continue
        texts = {name: _text_column(rows.table.column(name)) for name in rows.table.column_names}
        columns = {"id": texts[layout.id[0]]}
        columns |= {f"keep.{name}": texts[fields[0]] for name, fields in layout.keep.items()}
        if layout.text:
            parts = [texts[fields[0]] for fields in layout.text]
            # An empty part that is always there: Arrow loses the rows of which every part is skipped.
            empty = pa.array([""] * len(parts[0]))
            joined = pc.binary_join_element_wise(empty, *parts, "\n", null_handling="skip")
            joined = pc.utf8_slice_codeunits(joined, 1)  # without the line break that follows it
            columns["text"] = pc.if_else(pc.equal(joined, ""), pa.scalar(None, pa.string()), joined)
        if layout.image:
            columns["image"] = texts[layout.image[0]]
        missing = pc.is_null(columns["id"]).to_numpy(zero_copy_only=False)
        if missing.any():
            raise DatasetError(f"{file.row_name(rows.numbers[np.argmax(missing)])}: no item id; mend or remove the row")
        yield int(rows.numbers[0]), pa.table(columns)


def _text_column(column: Any) -> Any:
    """Any column as text; what is empty becomes null."""
    column = column.combine_chunks()
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = pc.binary_join(column.cast(pa.list_(pa.string())), ", ")
    text = column.cast(pa.string())
    return pc.if_else(pc.equal(pc.utf8_trim_whitespace(text), ""), pa.scalar(None, pa.string()), text)


def _nested_records(file: TableFile, layout: Layout) -> Iterator[tuple[int, Any]]:
    names = ["id", *layout.columns]
    schema = pa.schema([(name, pa.string()) for name in names])
    pending: list[dict[str, str | None]] = []
    first = 0
    with file.location.filesystem.open_input_stream(file.location.path) as stream:
        for number, record in enumerate(_records(io.BufferedReader(stream), file)):
            pending.append(_flatten(record, layout, file, number))
            if len(pending) == RECORDS_PER_FILE:
                yield first, pa.Table.from_pylist(pending, schema)
                first, pending = number + 1, []
    if pending:
        yield first, pa.Table.from_pylist(pending, schema)


def _records(lines: Any, file: TableFile) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        for line in lines:
            if line.strip():
                yield _parse_record(line, file, number)
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{file.location.uri}: {error}; the file is truncated or damaged: copy it again") from None


def _parse_record(line: bytes, file: TableFile, number: int) -> dict[str, Any]:
    try:
        text = line.decode("utf-8")
        try:
            record = json.loads(text)
        except json.JSONDecodeError:
            # The dump of 2014 holds Python literals; literal_eval reads these and runs nothing.
            record = ast.literal_eval(text.strip())
    except PARSE_ERRORS as error:
        raise DatasetError(f"{file.row_name(number)}: not a JSON object ({error}): {line[:80]!r}") from None
    if not isinstance(record, dict):
        raise DatasetError(f"{file.row_name(number)}: {type(record).__name__}; one JSON object a line is wanted")
    return record


def _flatten(record: Mapping[str, Any], layout: Layout, file: TableFile, number: int) -> dict[str, str | None]:
    identity = _text_of(record, layout.id)
    if identity is None:
        raise DatasetError(f"{file.row_name(number)}: none of the fields {list(layout.id)}; it has {sorted(record)}")
    row: dict[str, str | None] = {"id": identity}
    row |= {f"keep.{name}": _text_of(record, fields) for name, fields in layout.keep.items()}
    row["text"] = "\n".join(filter(None, (_text_of(record, fields) for fields in layout.text))) or None
    row["image"] = _address(next((record[name] for name in layout.image if record.get(name)), None))
    return row


def _text_of(record: Mapping[str, Any], fields: Fields) -> str | None:
    value = next((record[name] for name in fields if record.get(name)), None)
    return _joined(value) or None


def _joined(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, (_joined(part) for part in value)))
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _address(value: Any) -> str | None:
    """The first image's address; the edition of 2023 has objects with several sizes, the largest first here."""
    if isinstance(value, list | tuple):
        return next((found for part in value if (found := _address(part))), None)
    if isinstance(value, dict):
        return next((value[size] for size in ("hi_res", "large", "thumb") if value.get(size)), None)
    return value if isinstance(value, str) else None


def _final_records(entry: Answer, *, staging: Location, final_index: Any) -> Iterator[Any]:
    table = read_parquet(staging.child(entry["file"]))
    items = fetch(final_index)[table.column("item").to_numpy()]
    table = table.set_column(0, "item", pa.array(items))
    yield table.filter(pa.array(items >= 0))


def _item_columns(kept: Sequence[Any], layout: Layout, num_items: int) -> dict[str, Any]:
    if not kept or not layout.keep:
        return {}
    table = pa.concat_tables(kept)
    place = np.full(num_items, -1, np.int64)
    place[table.column("item").to_numpy()] = np.arange(table.num_rows)
    places = pa.array(place, mask=place < 0)
    return {name: table.column(f"keep.{name}").take(places) for name in layout.keep}
