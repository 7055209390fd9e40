"""One stretch of a log → canonical columns, with every bad row found and named."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from braidrec.data.description import SPLITS
from braidrec.data.errors import DatasetError
from braidrec.data.readers import Rows, TableFile

POSITION_BITS = 40
"""A row's position in the whole log is its file's number · 2^40 + its number in the file."""
FIRST_MILLISECONDS = 100_000_000_000
"""From here on a number is taken for milliseconds: 1973 in milliseconds, the year 5138 in seconds."""
FIRST_TOO_LARGE = 100_000_000_000_000
DATE = r"^\d{4}-\d\d-\d\d"
DAY_TIME = r"[T ]\d\d:\d\d:\d\d(\.\d+)?Z?$"
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
SPLIT_LABELS: dict[str, int] = {
    **{str(label): label for label in range(3)},
    **{f"{label}.0": label for label in range(3)},
    **{split: label for label, split in enumerate(SPLITS)},
}

CANONICAL_TYPES: dict[str, Any] = {
    "user": pa.string(),
    "item": pa.string(),
    "timestamp": pa.int64(),
    "rating": pa.float32(),
    "weight": pa.float32(),
    "label": pa.int8(),
    "position": pa.int64(),
}
QUARANTINE_SCHEMA = pa.schema(
    [("file", pa.string()), ("row", pa.int64()), ("reason", pa.string()), ("content", pa.string())]
)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class LogFile:
    """One file of a log and what its columns mean."""

    file: TableFile
    number: int
    """Its place among the files of the log."""
    columns: Mapping[str, str]
    """The file's column for each canonical one: user, item and any of rating, weight, timestamp, split."""
    timestamp_unit: str
    label: int | None = None
    """The split of all its rows, where the file decides it."""

    @property
    def first_position(self) -> int:
        return self.number << POSITION_BITS

    @property
    def canonical(self) -> list[str]:
        """The columns that `normalise` gives, in the order of CANONICAL_TYPES."""
        names = {*self.columns, "position"} - {"split"}
        if "split" in self.columns or self.label is not None:
            names.add("label")
        return [name for name in CANONICAL_TYPES if name in names]


@dataclass(kw_only=True)
class BadRows:
    """The first reason found for each bad row of a stretch."""

    mask: Mask
    reasons: dict[int, str] = field(default_factory=dict)

    def mark(self, bad: Mask, reason: str) -> None:
        for row in np.flatnonzero(bad & ~self.mask):
            self.reasons[int(row)] = reason
        self.mask |= bad


@dataclass(frozen=True, kw_only=True)
class Normalised:
    """A stretch of a log after checking."""

    good: Any
    """The good rows, with `LogFile.canonical` as columns; times in milliseconds."""
    bad: Any
    """The bad rows, a table of QUARANTINE_SCHEMA."""
    unit_examples: Mapping[str, str]
    """Where the unit of time was judged by size: the unit found and a row that has it."""


def normalise(rows: Rows, log: LogFile, *, quarantine: bool) -> Normalised:
    """Canonical columns of the good rows, and what is wrong with the others.

    Raises:
        DatasetError: a bad row, unless `quarantine`; times in seconds and in milliseconds in one log.
    """
    source = {name: rows.table.column(column).combine_chunks() for name, column in log.columns.items()}
    bad = BadRows(mask=np.zeros(len(rows.numbers), np.bool_))
    columns: dict[str, Any] = {}
    examples: dict[str, str] = {}
    for name in ("user", "item"):
        columns[name] = _ids(source[name], name, log, bad)
    for name in ("rating", "weight"):
        if name in log.columns:
            columns[name] = _number(source[name], name, bad)
    if "timestamp" in log.columns:
        columns["timestamp"], examples = _timestamps(source["timestamp"], rows, log, bad)
    if "split" in log.columns:
        columns["label"] = _labels(source["split"], bad)
    elif log.label is not None:
        columns["label"] = np.full(len(rows.numbers), log.label, np.int8)
    columns["position"] = log.first_position + rows.numbers
    if bad.mask.any() and not quarantine:
        raise DatasetError(_describe_first(rows, log, bad))
    table = pa.table({name: pa.array(columns[name], CANONICAL_TYPES[name]) for name in log.canonical})
    if bad.mask.any():
        table = table.filter(pa.array(~bad.mask))
    return Normalised(good=table, bad=_quarantine_table(rows, log, bad), unit_examples=examples)


def _ids(column: Any, name: str, log: LogFile, bad: BadRows) -> Any:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.dictionary_decode()
        kind = column.type
    if not (pa.types.is_integer(kind) or _is_text(kind)):
        raise DatasetError(
            f"{log.file.location.uri}: column {log.columns[name]!r} holds {kind}; ids must be text or whole numbers: "
            "write them as such"
        )
    text = pc.fill_null(column.cast(pa.string()), "")
    bad.mark(_numpy(pc.equal(pc.binary_length(text), 0)), f"empty {name} id")
    return text


def _number(column: Any, name: str, bad: BadRows) -> npt.NDArray[np.float32]:
    values, malformed = floats(column)
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    bad.mark(malformed | ~np.isfinite(narrow), f"{name} is not a finite number")
    if name == "weight":
        bad.mark(narrow < 0, "weight is negative")
    return np.where(bad.mask, np.float32(0), narrow)


def floats(column: Any) -> tuple[npt.NDArray[np.float64], Mask]:
    """Numbers, and where there is none; NaN and infinity count as numbers here."""
    if not (_is_text(column.type) or pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        return np.zeros(len(column)), np.ones(len(column), np.bool_)
    if _is_text(column.type):
        text = pc.utf8_trim_whitespace(column)
        # "nan" and "inf" would be cast, but are no numbers that a person wrote.
        good = pc.fill_null(pc.match_substring_regex(text, NUMBER), False)
        column = pc.if_else(good, text, pa.scalar(None, text.type))
    malformed = _numpy(pc.is_null(column))
    # Whole numbers beyond 2^53 are rounded, as the text of such a number is.
    values = column.cast(pa.float64(), safe=not pa.types.is_integer(column.type))
    return pc.fill_null(values, 0.0).to_numpy(zero_copy_only=False), malformed


def _timestamps(column: Any, rows: Rows, log: LogFile, bad: BadRows) -> tuple[npt.NDArray[np.int64], dict[str, str]]:
    """Milliseconds, and an example of the unit where it was judged by size."""
    if pa.types.is_temporal(column.type) or log.timestamp_unit == "iso":
        return _dates(column, bad), {}
    values, malformed = floats(column)
    bad.mark(malformed | ~np.isfinite(values), "timestamp is not a number")
    bad.mark(values < 0, "timestamp is negative")
    bad.mark(values >= FIRST_TOO_LARGE, "timestamp is larger than milliseconds can be (micro- or nanoseconds?)")
    values = np.where(bad.mask, 0.0, values)
    in_milliseconds = values >= FIRST_MILLISECONDS
    in_seconds = (values > 0) & ~in_milliseconds
    if log.timestamp_unit == "s":
        bad.mark(in_milliseconds, "timestamp is in milliseconds, not seconds")
    elif log.timestamp_unit == "ms":
        bad.mark(in_seconds, "timestamp is in seconds, not milliseconds")
    scale = np.where(in_milliseconds, 1.0, 1000.0)
    examples = {}
    if log.timestamp_unit == "auto":
        for unit, mask in (("seconds", in_seconds), ("milliseconds", in_milliseconds)):
            if mask.any():
                row = int(np.argmax(mask))
                examples[unit] = f"{log.file.row_name(rows.numbers[row])}: {int(values[row])}"
    return np.floor(values * scale).astype(np.int64), examples


def mixed_units(seconds: str, milliseconds: str) -> str:
    """The message for a log whose times have two units; each argument names a row and its value."""
    return (
        f"times in seconds ({seconds}) and in milliseconds ({milliseconds}) in one log; convert one, or set "
        "columns.timestamp_unit to s or ms and on_bad_row=quarantine to leave the others out"
    )


def _dates(column: Any, bad: BadRows) -> npt.NDArray[np.int64]:
    """Milliseconds since 1970 of Arrow dates and times, or of text without an offset (which is taken for UTC)."""
    if not pa.types.is_temporal(column.type):
        text = pc.utf8_trim_whitespace(column.cast(pa.string()))
        whole_day = pc.match_substring_regex(text, DATE + "$")
        text = pc.if_else(whole_day, pc.binary_join_element_wise(text, "00:00:00", " "), text)
        good = pc.fill_null(pc.match_substring_regex(text, DATE + DAY_TIME), False)
        seconds = pc.replace_substring(pc.utf8_slice_codeunits(text, 0, 19), "T", " ")
        seconds = pc.if_else(good, seconds, pa.scalar(None, pa.string()))
        column = pc.strptime(seconds, format="%Y-%m-%d %H:%M:%S", unit="ms", error_is_null=True)
    milliseconds = column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
    bad.mark(_numpy(pc.is_null(milliseconds)), "timestamp is not a date such as 2014-03-01 or 2014-03-01T12:00:00")
    values: npt.NDArray[np.int64] = pc.fill_null(milliseconds, 0).to_numpy(zero_copy_only=False)
    bad.mark(values < 0, "timestamp is before 1970")
    return values


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _labels(column: Any, bad: BadRows) -> npt.NDArray[np.int8]:
    text = pc.fill_null(column.cast(pa.string()), "")
    place = pc.index_in(text, value_set=pa.array(list(SPLIT_LABELS)))
    bad.mark(_numpy(pc.is_null(place)), "split is none of 0, 1, 2, train, valid, test")
    labels: npt.NDArray[np.int8] = np.array(list(SPLIT_LABELS.values()), np.int8)[
        pc.fill_null(place, 0).to_numpy(zero_copy_only=False)
    ]
    return labels


def _numpy(mask: Any) -> Mask:
    result: Mask = mask.to_numpy(zero_copy_only=False)
    return result


def _content(table: Any, row: int) -> str:
    return ", ".join(f"{name}={table.column(name)[row].as_py()!r}" for name in table.column_names)


def _describe_first(rows: Rows, log: LogFile, bad: BadRows) -> str:
    row = min(bad.reasons)
    return (
        f"{log.file.row_name(rows.numbers[row])}: {bad.reasons[row]} ({_content(rows.table, row)}); "
        "mend the row, or set on_bad_row=quarantine to set such rows aside"
    )


def _quarantine_table(rows: Rows, log: LogFile, bad: BadRows) -> Any:
    found: list[tuple[int, str, str]] = [
        (int(rows.numbers[row]), reason, _content(rows.table, row)) for row, reason in sorted(bad.reasons.items())
    ]
    found += [(number, "another number of columns than the header", text) for number, text in rows.broken_lines]
    return quarantine_table(log.file.location.uri, found)


def quarantine_table(uri: str, found: Sequence[tuple[int, str, str]]) -> Any:
    """Rows of QUARANTINE_SCHEMA from (row, reason, content)."""
    rows = [{"file": uri, "row": row, "reason": reason, "content": content} for row, reason, content in found]
    return pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)
