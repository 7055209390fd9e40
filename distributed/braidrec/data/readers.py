"""Logs as streams of Arrow tables: CSV, TSV, JSON lines and Parquet, plain or gzip, in constant memory.

Text columns stay text, so that an id keeps its leading zeros and a bad number can be shown as it was written.
"""

import csv
import difflib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from braidrec.data.errors import DatasetError
from braidrec.data.storage import Location, refuse_repeated_folders

Format = Literal["csv", "jsonl", "parquet"]

BLOCK_BYTES = 16 << 20
"""What is read at a time, and the longest line or record that can be."""
WHOLE_NUMBER_BITS = 63
BATCH_ROWS = 1 << 18
SUFFIXES: dict[str, tuple[Format, str]] = {
    ".csv": ("csv", ","),
    ".tsv": ("csv", "\t"),
    ".inter": ("csv", "\t"),
    ".jsonl": ("jsonl", ""),
    ".json": ("jsonl", ""),
    ".ndjson": ("jsonl", ""),
    ".parquet": ("parquet", ""),
}
NAMED_FORMATS: dict[str, tuple[Format, str]] = {
    "csv": ("csv", ","),
    "tsv": ("csv", "\t"),
    "jsonl": ("jsonl", ""),
    "parquet": ("parquet", ""),
}


@dataclass(frozen=True, kw_only=True)
class TableFile:
    """One file with named columns."""

    location: Location
    format: Format
    delimiter: str = ""
    column_names: tuple[str, ...] | None = None
    """Names for a CSV without a header line."""

    def row_name(self, row: int) -> str:
        """How an error names a row, counted from 0: text files by line (blank lines not counted, and as one line a
        record whose fields have line breaks)."""
        if self.format == "parquet":
            return f"{self.location.uri}, row {row}"
        header = 1 if self.format == "csv" and self.column_names is None else 0
        return f"{self.location.uri}, line {row + 1 + header}"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """A stretch of a file."""

    table: Any
    numbers: npt.NDArray[np.int64]
    """Number of each row in the file, counted from 0 without the header."""
    broken_lines: tuple[tuple[int, str], ...] = ()
    """Lines of another width than the header, where they are to be set aside: number and text."""


def table_files(
    paths: Sequence[str], named_format: str = "auto", delimiter: str | None = None, names: Sequence[str] | None = None
) -> list[TableFile]:
    """Every file named by `paths`, folders searched, in the order given and by name within a folder.

    Raises:
        DatasetError: no such file, an empty folder, or a suffix that does not tell the format.
    """
    files = []
    for path in paths:
        location = Location.of(path)
        found = [location]
        if location.is_folder():
            refuse_repeated_folders(location)
            found = [location.child(name) for name in location.files() if not name.startswith((".", "_"))]
            if not found:
                raise DatasetError(f"{location.uri}: the folder is empty")
        elif not location.is_file():
            raise DatasetError(f"{location.uri}: no such file or folder")
        for file in found:
            format_, default_delimiter = _format_of(file, named_format)
            files.append(
                TableFile(
                    location=file,
                    format=format_,
                    delimiter=delimiter or default_delimiter,
                    column_names=tuple(names) if names is not None else None,
                )
            )
    return files


def _format_of(file: Location, named_format: str) -> tuple[Format, str]:
    if named_format != "auto":
        return NAMED_FORMATS[named_format]
    name = file.name.removesuffix(".gz")
    for suffix, known in SUFFIXES.items():
        if name.endswith(suffix):
            return known
    raise DatasetError(
        f"{file.uri}: its suffix tells no format (known: {sorted(SUFFIXES)}, each also .gz); "
        f"set format to one of {sorted(NAMED_FORMATS)}"
    )


def column_types(file: TableFile) -> dict[str, Any]:
    """Names and Arrow types of a file's columns, None for a name that several columns of a CSV have. A JSON-lines file
    is judged by its first record.

    Raises:
        DatasetError: the file is empty or is not what its format says.
    """
    try:
        if file.format == "parquet":
            with file.location.filesystem.open_input_file(file.location.path) as source:
                schema = pq.ParquetFile(source).schema_arrow
                return {name: schema.field(name).type for name in schema.names}
        with _open(file) as stream:
            head = _first_line(stream, file)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None
    if file.format == "jsonl":
        return {name: _json_type(value) for name, value in _parse_record(head, file).items()}
    names = next(csv.reader(io.StringIO(head), delimiter=file.delimiter))
    if file.column_names is not None:
        if len(names) != len(file.column_names):
            raise DatasetError(
                f"{file.location.uri}: {len(names)} columns in its first line, column_names has "
                f"{len(file.column_names)}: {list(file.column_names)}"
            )
        names = list(file.column_names)
    return {name: pa.string() if names.count(name) == 1 else None for name in names}


def require_columns(file: TableFile, wanted: Sequence[str]) -> dict[str, Any]:
    """The types of the wanted columns.

    Raises:
        DatasetError: a column is missing, or there twice; the message says which exist.
    """
    types = column_types(file)
    for name in wanted:
        if name not in types:
            nearest = difflib.get_close_matches(name, types, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise DatasetError(
                f"{file.location.uri}: no column {name!r}.{hint} Its columns are {list(types)}; "
                "name the right one in the configuration (columns.…)"
            )
        if types[name] is None:
            raise DatasetError(f"{file.location.uri}: several columns are called {name!r}: rename all but one of them")
    return {name: types[name] for name in wanted}


def read_rows(
    file: TableFile, wanted: Sequence[str], *, numbers: Sequence[str] = (), set_broken_lines_aside: bool = False
) -> Iterator[Rows]:
    """Stream the wanted columns. CSV columns are strings, those of JSON lines and Parquet have their own types.

    Args:
        numbers: columns of JSON lines that may hold fractions although the first record has a whole number.
        set_broken_lines_aside: hand out CSV lines of the wrong width instead of refusing the file.
    Raises:
        DatasetError: missing column, truncated or damaged file, text that is not UTF-8, a broken line or record.
    """
    types = require_columns(file, wanted)
    if file.format == "jsonl":
        types |= {name: pa.float64() for name in numbers if types[name] == pa.int64()}
    readers = {"csv": _read_csv, "jsonl": _read_json, "parquet": _read_parquet}
    broken: list[tuple[int, str]] = []
    first, told = 0, 0
    try:
        for table in readers[file.format](file, types, broken if set_broken_lines_aside else None):
            skipped = [number for number, _ in broken if number >= first]
            candidates = np.arange(first, first + table.num_rows + len(skipped))
            places = np.setdiff1d(candidates, skipped)[: table.num_rows]
            yield Rows(table=table, numbers=places, broken_lines=tuple(broken[told:]))
            first, told = int(places[-1]) + 1 if len(places) else first, len(broken)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from None


def _read_csv(file: TableFile, types: dict[str, Any], broken: list[tuple[int, str]] | None) -> Iterator[Any]:
    header = 0 if file.column_names is not None else 1

    def handle(line: Any) -> str:
        assert broken is not None
        broken.append((line.number - 1 - header, line.text))
        return "skip"

    with _open(file) as stream:
        # One thread, because only then does Arrow know the number of a broken line.
        reader = pacsv.open_csv(
            stream,
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, column_names=list(file.column_names or ()) or None
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=file.delimiter,
                newlines_in_values=True,
                invalid_row_handler=None if broken is None else handle,
            ),
            convert_options=pacsv.ConvertOptions(column_types=types, include_columns=list(types)),
        )
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _read_json(file: TableFile, types: dict[str, Any], _: object) -> Iterator[Any]:
    with _open(file) as stream:
        reader = pajson.open_json(
            stream,
            read_options=pajson.ReadOptions(block_size=BLOCK_BYTES),
            parse_options=pajson.ParseOptions(
                explicit_schema=pa.schema(list(types.items())), unexpected_field_behavior="ignore"
            ),
        )
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _read_parquet(file: TableFile, types: dict[str, Any], _: object) -> Iterator[Any]:
    with file.location.filesystem.open_input_file(file.location.path) as source:
        for batch in pq.ParquetFile(source).iter_batches(batch_size=BATCH_ROWS, columns=list(types)):
            yield pa.Table.from_batches([batch])


def _open(file: TableFile) -> Any:
    return file.location.filesystem.open_input_stream(file.location.path)


def _first_line(stream: Any, file: TableFile) -> str:
    """The first line that is not blank, without a byte order mark."""
    for _, line in _lines(stream, file):
        if line.strip():
            try:
                return line.splitlines(keepends=True)[0].decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise DatasetError(_not_utf8(file, 1, error)) from None
    raise DatasetError(f"{file.location.uri}: the file is empty")


def _lines(stream: Any, file: TableFile) -> Iterator[tuple[int, bytes]]:
    """Lines and their numbers from 1; no more of the file than one line is held.

    Raises:
        DatasetError: a line is too long to be one: a gzip bomb, or no text file at all.
    """
    buffered = io.BufferedReader(stream)
    number = 0
    while line := buffered.readline(BLOCK_BYTES):
        number += 1
        if len(line) == BLOCK_BYTES and not line.endswith(b"\n"):
            raise DatasetError(
                f"{file.location.uri}, line {number}: longer than {BLOCK_BYTES >> 20} MiB; this is no {file.format}, "
                "or its line breaks are lost"
            )
        yield number, line


def _parse_record(line: str, file: TableFile) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{file.row_name(0)}: not JSON ({error}); one object a line is wanted") from None
    if not isinstance(record, dict):
        raise DatasetError(f"{file.row_name(0)}: {type(record).__name__}; one JSON object a line is wanted")
    return record


def _json_type(value: Any) -> Any:
    """Whole numbers are read as such, because they may be ids."""
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64()
    if isinstance(value, list):
        return pa.list_(_json_type(next((element for element in value if element is not None), None)))
    return pa.float64() if isinstance(value, float) else pa.string()


def _unreadable(file: TableFile, error: Exception) -> DatasetError:
    """Say where a file is damaged. Only now is the file read line by line in Python."""
    if file.format != "parquet":
        try:
            explained = _find_bad_line(file)
        except (pa.ArrowException, OSError):
            explained = None
        if explained:
            return DatasetError(explained)
    text = str(error).splitlines()[0]
    mend = "the file is truncated or damaged: copy it again"
    if "changed from" in text:
        mend = "write a field with one type in all records (the first one tells which, so it must not be null there)"
    return DatasetError(f"{file.location.uri}: not readable as {file.format} ({text}); {mend}")


def _find_bad_line(file: TableFile) -> str | None:
    with _open(file) as stream:
        return (_find_bad_record if file.format == "jsonl" else _find_uneven_line)(stream, file)


def _find_bad_record(stream: Any, file: TableFile) -> str | None:
    for number, text in _texts(stream, file):
        if text.strip() and (problem := _json_problem(text)):
            return f"{file.location.uri}, line {number}: {problem}"
    return None


def _find_uneven_line(stream: Any, file: TableFile) -> str | None:
    """A record may have line breaks within quotes, so that it is named by its first line."""
    width: int | None = None
    csv.field_size_limit(BLOCK_BYTES)
    reader = csv.reader((text for _, text in _texts(stream, file)), delimiter=file.delimiter)
    first = 1
    try:
        for fields in reader:
            if fields:
                width = len(fields) if width is None else width
                if len(fields) != width:
                    text = file.delimiter.join(fields)[:80]
                    return (
                        f"{file.location.uri}, line {first}: {len(fields)} columns instead of {width}: {text!r}; "
                        "mend the line or set on_bad_row=quarantine"
                    )
            first = reader.line_num + 1
    except csv.Error as error:
        return f"{file.location.uri}, line {first}: {error}; is a quote not closed?"
    return None


def _texts(stream: Any, file: TableFile) -> Iterator[tuple[int, str]]:
    """Lines as text, and their numbers from 1."""
    for number, line in _lines(stream, file):
        try:
            yield number, line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DatasetError(_not_utf8(file, number, error)) from None


def _json_problem(text: str) -> str | None:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        return f"not JSON ({error}): {text.strip()[:80]!r}; one object a line is wanted"
    if not isinstance(record, dict):
        return f"{type(record).__name__}; one JSON object a line is wanted"
    for name, value in record.items():
        if isinstance(value, int) and value.bit_length() > WHOLE_NUMBER_BITS:
            return f"{name}={value} does not fit into 64 bits; write such ids as text, in quotes"
    return None


def _not_utf8(file: TableFile, line: int, error: UnicodeDecodeError) -> str:
    byte = error.object[error.start]
    return (
        f"{file.location.uri}, line {line}: byte 0x{byte:02x} at column {error.start + 1} is not UTF-8; convert the "
        "file, for instance with: iconv -f LATIN1 -t UTF-8"
    )
