"""First stage: every log file is read once, checked, and written as canonical Parquet; the ids are collected."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from braidrec.data.description import FileEntry
from braidrec.data.errors import DatasetError
from braidrec.data.readers import read_rows, require_columns
from braidrec.data.rows import LogFile, mixed_units, normalise
from braidrec.data.stages import Answer, run_tasks
from braidrec.data.storage import Location
from braidrec.data.writer import part_name, write_table

ROWS_PER_STAGING_FILE = 1_000_000
MERGE_AT = 5_000_000
QUARANTINE_FOLDER = "quarantine"
TEXTS = pa.large_list(pa.string())
ANSWER_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        ("rows", pa.int64()),
        ("users", TEXTS),
        ("items", TEXTS),
        ("unit_examples", pa.string()),
        ("bad_rows", pa.string()),
        ("quarantine", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """The log as canonical Parquet files in the staging folder."""

    files: tuple[str, ...]
    rows: int
    columns: tuple[str, ...]
    """Canonical columns that every file has."""
    user_ids: Any
    """Every id that occurs, in index order (large_string): shorter ones first, then by code point."""
    item_ids: Any
    bad_rows: Mapping[str, int]
    """Rows set aside, by reason."""
    quarantine: Mapping[str, FileEntry]


def check_logs(logs: Sequence[LogFile]) -> None:
    """Refuse, before anything is read, a file that lacks a column or is not what its format says."""
    for log in logs:
        require_columns(log.file, list(log.columns.values()))


def scan(logs: Sequence[LogFile], *, output: Location, staging: Location, quarantine: bool) -> Scanned:
    """Read all logs.

    Raises:
        DatasetError: a damaged file, a bad row (unless `quarantine`), mixed units of time, no good row at all.
    """
    task = partial(_scan_file, logs=logs, output=output, staging=staging, quarantine=quarantine)
    users, items = _Ids(), _Ids()
    files: list[tuple[str, int]] = []
    units: dict[str, str] = {}
    bad_rows: Counter[str] = Counter()
    entries: dict[str, FileEntry] = {}
    for answer in run_tasks([{"number": number} for number in range(len(logs))], task, ANSWER_SCHEMA):
        units |= json.loads(answer["unit_examples"] or "{}")
        if answer["quarantine"]:
            bad_rows.update(json.loads(answer["bad_rows"]))
            path, entry = json.loads(answer["quarantine"])
            entries[path] = FileEntry(**entry)
            continue
        files.append((answer["file"], answer["rows"]))
        users.add(answer["users"])
        items.add(answer["items"])
    if not files:
        raise DatasetError(f"{logs[0].file.location.uri}: no usable row in it, or in any other file of the log")
    if len(units) == 2:
        raise DatasetError(mixed_units(units["seconds"], units["milliseconds"]))
    return Scanned(
        files=tuple(sorted(file for file, _ in files)),
        rows=sum(rows for _, rows in files),
        columns=tuple(logs[0].canonical),
        user_ids=users.in_index_order(),
        item_ids=items.in_index_order(),
        bad_rows=dict(sorted(bad_rows.items())),
        quarantine=entries,
    )


def in_index_order(ids: Any) -> Any:
    """Distinct ids, shorter ones first and then by code point, so that whole numbers are in numeric order."""
    lengths = pc.binary_length(ids)
    order = pc.sort_indices(
        pa.table({"length": lengths, "id": ids}), sort_keys=[("length", "ascending"), ("id", "ascending")]
    )
    return ids.take(order)


class _Ids:
    """Collects distinct ids; merges from time to time, so that memory follows the ids and not the blocks."""

    def __init__(self) -> None:
        self.chunks: list[Any] = []
        self.pending = 0

    def add(self, ids: Any) -> None:
        self.chunks.append(ids.cast(pa.large_string()))
        self.pending += len(ids)
        if self.pending > MERGE_AT + 2 * len(self.chunks[0]):
            self._merge()

    def in_index_order(self) -> Any:
        self._merge()
        return in_index_order(self.chunks[0])

    def _merge(self) -> None:
        self.chunks = [pc.unique(pa.chunked_array(self.chunks))]
        self.pending = 0


def _scan_file(
    entry: Answer, *, logs: Sequence[LogFile], output: Location, staging: Location, quarantine: bool
) -> Iterator[Answer]:
    log = logs[entry["number"]]
    tables: list[Any] = []
    bad_tables: list[Any] = []
    units: dict[str, str] = {}
    part = 0
    numbers = [log.columns[name] for name in ("rating", "weight", "timestamp") if name in log.columns]
    wanted = list(dict.fromkeys(log.columns.values()))
    for rows in read_rows(log.file, wanted, numbers=numbers, set_broken_lines_aside=quarantine):
        checked = normalise(rows, log, quarantine=quarantine)
        units |= checked.unit_examples
        tables += [checked.good] if checked.good.num_rows else []
        bad_tables += [checked.bad] if checked.bad.num_rows else []
        if sum(table.num_rows for table in tables) >= ROWS_PER_STAGING_FILE:
            yield _write_staging(tables, log, part, staging) | {"unit_examples": json.dumps(units)}
            part += 1
            tables = []
    if tables:
        yield _write_staging(tables, log, part, staging) | {"unit_examples": json.dumps(units)}
    if bad_tables:
        yield _write_quarantine(pa.concat_tables(bad_tables).sort_by("row"), log, output)


def _write_staging(tables: Sequence[Any], log: LogFile, part: int, staging: Location) -> Answer:
    table = pa.concat_tables(tables)
    file = f"scan/log-{log.number:05d}-{part:05d}.parquet"
    write_table(staging.child(file), table)
    return {
        "file": file,
        "rows": table.num_rows,
        "users": pc.unique(table.column("user")),
        "items": pc.unique(table.column("item")),
    }


def _write_quarantine(bad: Any, log: LogFile, output: Location) -> Answer:
    path = part_name(QUARANTINE_FOLDER, log.number)
    entry = write_table(output.child(path), bad)
    reasons = Counter(bad.column("reason").to_pylist())
    return {"bad_rows": json.dumps(reasons), "quarantine": json.dumps([path, entry.to_plain()])}
