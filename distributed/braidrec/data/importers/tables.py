"""Logs as tables with named columns, and logs of which each holds one split."""

from collections.abc import Sequence

from braidrec.config.prepare import ColumnsConfig, GivenFilesSourceConfig, TableSourceConfig
from braidrec.data.importers.raw import RawData
from braidrec.data.readers import TableFile, table_files
from braidrec.data.rows import LogFile


def import_table(source: TableSourceConfig) -> RawData:
    """CSV, TSV, JSON lines or Parquet with named columns."""
    files = table_files(source.paths, source.format, source.delimiter, source.column_names)
    return RawData(
        logs=tuple(log_file(file, number, source.columns) for number, file in enumerate(files)),
        has_given_split=source.columns.split is not None,
    )


def import_given_files(source: GivenFilesSourceConfig) -> RawData:
    """One or more files a split."""
    logs: list[LogFile] = []
    groups: Sequence[tuple[str, ...]] = (source.train, source.valid, source.test)
    for label, paths in enumerate(groups):
        files = table_files(paths, source.format, source.delimiter, source.column_names)
        logs += [log_file(file, len(logs) + place, source.columns, label) for place, file in enumerate(files)]
    return RawData(logs=tuple(logs), has_given_split=True)


def log_file(file: TableFile, number: int, columns: ColumnsConfig, label: int | None = None) -> LogFile:
    """A file with the meaning of its columns."""
    named = {
        name: column
        for name in ("user", "item", "rating", "weight", "timestamp", "split")
        if (column := getattr(columns, name)) is not None
    }
    return LogFile(file=file, number=number, columns=named, timestamp_unit=columns.timestamp_unit, label=label)
