"""Reading a dataset folder (docs/dataset-format.md): its description, interactions and ids."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from braidrec.config.load import ConfigError, validate
from braidrec.data.description import (
    DESCRIPTION_FILE,
    OPTIONAL_COLUMNS,
    SCHEMA_VERSION,
    SPLITS,
    DatasetDescription,
    ModalityDescription,
    Side,
    Split,
    features_folder,
)
from braidrec.data.errors import DatasetError
from braidrec.data.ragged import fits, padded
from braidrec.data.storage import Location, read_parquet, read_parquet_batches

UNFINISHED_FILE = "UNFINISHED"
COLUMN_TYPES: dict[str, Any] = {
    "user": pa.int32(),
    "item": pa.int32(),
    "timestamp": pa.int64(),
    "rating": pa.float32(),
    "weight": pa.float32(),
}
ROWS_AT_ONCE = 1 << 20
PREPARE_AGAIN = "prepare the data set again with jobs/prepare.py"


@dataclass(frozen=True, kw_only=True)
class DatasetFolder:
    """A dataset folder whose description and file sizes have been checked. Contents are read on demand."""

    path: str
    description: DatasetDescription
    location: Location

    @classmethod
    def open(cls, path_or_uri: str) -> "DatasetFolder":
        """Read `dataset.json` and compare the files it lists with those that are there.

        Raises:
            DatasetError: no such folder, no or unreadable `dataset.json`, another schema version, a file that
                is missing or has another size than when it was written.
        """
        location = Location.of(path_or_uri)
        description = _read_description(location)
        _check_files(location, description)
        return cls(path=location.uri, description=description, location=location)

    @property
    def num_users(self) -> int:
        return self.description.num_users

    @property
    def num_items(self) -> int:
        return self.description.num_items

    @property
    def digest(self) -> str:
        """One hash over the hashes of all files."""
        return self.description.digest()

    def verify(self) -> None:
        """Read every file and compare its SHA-256 with `dataset.json`.

        Raises:
            DatasetError: a file's content is not what was written.
        """
        for relative, entry in self.description.files.items():
            seen = self.location.child(relative).sha256()
            if seen != entry.sha256:
                raise DatasetError(
                    f"{self.path}/{relative}: SHA-256 is {seen[:12]}…, {DESCRIPTION_FILE} says "
                    f"{entry.sha256[:12]}…; the file was changed: {PREPARE_AGAIN}"
                )

    def num_rows(self, split: Split) -> int:
        return self.description.splits[split].rows

    def edges(self, split: Split) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Users and items of a split in stored order: two int32 arrays [rows].

        Raises:
            DatasetError: damaged Parquet, an id out of range, or another number of rows than described.
        """
        users, items = (np.empty(self.num_rows(split), dtype=np.int32) for _ in range(2))
        start = 0
        for rows in self.chunks(split, ["user", "item"]):
            stop = start + len(rows["user"])
            users[start:stop], items[start:stop] = rows["user"], rows["item"]
            start = stop
        return users, items

    def chunks(
        self, split: Split, columns: list[str], rows: int = ROWS_AT_ONCE
    ) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """The columns of a split in stored order, at most `rows` rows at a time, of which one lot is held in memory.

        Raises:
            DatasetError: damaged Parquet, an id out of range, or another number of rows than described.
        """
        described, found = self.num_rows(split), 0
        bounds = {"user": self.num_users, "item": self.num_items}
        for relative in self._parts_of(f"interactions/{split}"):
            for batch in read_parquet_batches(self.location.child(relative), columns, rows):
                values = {name: self._values(split, name, batch.column(name), found) for name in columns}
                for name in [name for name in columns if name in bounds]:
                    self._check_range(split, name, values[name], bounds[name], found)
                found += batch.num_rows
                if found <= described:  # nobody gets more than is described, and the message gives the whole number
                    yield values
        self._check_number(split, found)

    def column(self, split: Split, name: str) -> npt.NDArray[Any] | None:
        """`timestamp` (int64 seconds), `rating` or `weight` (float32) in stored order; None where absent."""
        if name not in OPTIONAL_COLUMNS:
            raise ValueError(f"column {name!r}: choose one of {list(OPTIONAL_COLUMNS)}")
        if not getattr(self.description.splits[split], f"has_{name}"):
            return None
        values: npt.NDArray[Any] = self._read(split, [name]).column(name).to_numpy()
        return values

    def ray_dataset(self, split: Split, columns: list[str], extra: Any = None) -> Any:
        """The split as a `ray.data.Dataset` with the given columns, in stored order; `extra` rows follow the last."""
        import ray.data

        from braidrec.data.split_source import SplitSource

        parts = [
            (self.location.child(relative), self.description.files[relative].bytes)
            for relative in self.parts(f"interactions/{split}")
        ]
        schema = pa.schema([(name, COLUMN_TYPES[name]) for name in columns])
        return ray.data.read_datasource(SplitSource(parts, schema, extra), override_num_blocks=len(parts))

    def user_ids(self) -> Any:
        """The users' own ids (pyarrow strings) in index order."""
        return self._ids("users.parquet", "user_id", self.num_users)

    def item_ids(self) -> Any:
        """The items' own ids (pyarrow strings) in index order."""
        return self._ids("items.parquet", "item_id", self.num_items)

    def items_table(self) -> Any:
        """`items.parquet` whole: item, item_id and whatever columns the catalogue brought."""
        return read_parquet(self.location.child("items.parquet"))

    def modality(self, name: str, side: Side = "item") -> ModalityDescription:
        """What `dataset.json` says about the vectors of the items, or of the users.

        Raises:
            DatasetError: there are none of that name.
        """
        known = self.description.modalities_of(side)
        if name not in known:
            raise DatasetError(f"{self.path}: no {side} modality {name!r}; it has {sorted(known)}")
        return known[name]

    def features(self, modality: str, side: Side = "item") -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
        """Items (users) that have the modality (int32 [n], ascending) and their vectors ([n, *shape] in their dtype).

        All in memory: `braidrec.features.table` maps them from the disk instead. Of a ragged modality what stands after
        a vector's last component is zero.
        """
        described = self.modality(modality, side)
        table = self._read_folder(features_folder(side, modality), [side, "vector"])
        items = table.column(side).to_numpy()
        vectors = table.column("vector").combine_chunks()
        flat = vectors.flatten().to_numpy(zero_copy_only=False)
        if described.ragged:
            lengths = pc.list_value_length(vectors).to_numpy(zero_copy_only=False)
            bad = np.flatnonzero(~fits(lengths, described.shape))
            if len(bad):
                most, one = described.shape
                raise DatasetError(
                    f"{self.path}/{features_folder(side, modality)}: {side} {items[bad[0]]} has {lengths[bad[0]]} "
                    f"numbers; wanted one to {most} components of {one} each: {PREPARE_AGAIN}"
                )
            flat = padded(flat, lengths, described.dim)
        return items, flat.reshape(len(items), *described.shape)

    def relation(
        self, name: str
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32] | None]:
        """Edges between items or users in stored order: src and dst (int32 [rows]), and weights where there are some.

        Raises:
            DatasetError: there is none of that name, or an index out of range.
        """
        described = self.description.relations.get(name)
        if described is None:
            raise DatasetError(f"{self.path}: no relation {name!r}; it has {sorted(self.description.relations)}")
        table = self._read_folder(f"relations/{name}", ["src", "dst", *(["weight"] if described.has_weight else [])])
        count = self.num_items if described.between == "items" else self.num_users
        ends = []
        for column in ("src", "dst"):
            ids = table.column(column).cast(pa.int32()).to_numpy()
            if len(ids) and (ids.min() < 0 or ids.max() >= count):
                row = int(np.flatnonzero((ids < 0) | (ids >= count))[0])
                raise DatasetError(
                    f"{self.path}/relations/{name}, row {row}: {column}={ids[row]} is outside 0…{count - 1}; "
                    f"{PREPARE_AGAIN}"
                )
            ends.append(ids)
        weights = table.column("weight").cast(pa.float32()).to_numpy() if described.has_weight else None
        return ends[0], ends[1], weights

    def parts(self, folder: str) -> list[str]:
        """Relative paths of the files in `folder`, in reading order."""
        return sorted(relative for relative in self.description.files if relative.startswith(f"{folder}/"))

    def _ids(self, file: str, column: str, wanted: int) -> Any:
        ids = read_parquet(self.location.child(file), [column]).column(column).combine_chunks()
        if len(ids) != wanted:
            raise DatasetError(
                f"{self.path}/{file}: {len(ids)} rows, {DESCRIPTION_FILE} says {wanted}; {PREPARE_AGAIN}"
            )
        return ids

    def _read(self, split: Split, columns: list[str]) -> Any:
        table = self._read_folder(f"interactions/{split}", columns)
        self._check_number(split, table.num_rows)
        return table.select(columns).cast(pa.schema([(name, COLUMN_TYPES[name]) for name in columns]))

    def _read_folder(self, folder: str, columns: list[str]) -> Any:
        files = [self.location.child(relative) for relative in self._parts_of(folder)]
        return pa.concat_tables([read_parquet(file, columns) for file in files])

    def _parts_of(self, folder: str) -> list[str]:
        parts = self.parts(folder)
        if not parts:
            raise DatasetError(f"{self.path}/{folder}: no part files; {PREPARE_AGAIN}")
        return parts

    def _values(self, split: Split, name: str, column: Any, first_row: int) -> npt.NDArray[Any]:
        if column.null_count:
            row = first_row + int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
            raise DatasetError(f"{self.path}/interactions/{split}, row {row}: {name} is null; {PREPARE_AGAIN}")
        values: npt.NDArray[Any] = column.cast(COLUMN_TYPES[name]).to_numpy()
        return values

    def _check_number(self, split: Split, rows: int) -> None:
        if rows != self.num_rows(split):
            raise DatasetError(
                f"{self.path}/interactions/{split}: {rows} rows, {DESCRIPTION_FILE} says {self.num_rows(split)}; "
                f"{PREPARE_AGAIN}"
            )

    def _check_range(self, split: str, name: str, ids: npt.NDArray[np.int32], count: int, first_row: int) -> None:
        if len(ids) and (ids.min() < 0 or ids.max() >= count):
            row = int(np.flatnonzero((ids < 0) | (ids >= count))[0])
            raise DatasetError(
                f"{self.path}/interactions/{split}, row {first_row + row}: {name}={ids[row]} is outside 0…{count - 1}; "
                f"{DESCRIPTION_FILE} and the rows do not belong together: {PREPARE_AGAIN}"
            )


def _read_description(location: Location) -> DatasetDescription:
    file = location.child(DESCRIPTION_FILE)
    if not file.is_file():
        raise DatasetError(_why_no_description(location))
    try:
        plain = json.loads(file.read_bytes().decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{file.uri}: not readable as JSON ({error}); {PREPARE_AGAIN}") from None
    version = plain.get("schema_version") if isinstance(plain, dict) else None
    if version != SCHEMA_VERSION:
        raise DatasetError(
            f"{file.uri}: schema_version is {version!r}, this version of braidrec reads {SCHEMA_VERSION}; "
            f"{PREPARE_AGAIN}"
        )
    try:
        description = validate(DatasetDescription, plain, file.uri)
    except ConfigError as error:
        raise DatasetError(f"{error}\n{PREPARE_AGAIN}") from None
    missing = [split for split in SPLITS if split not in description.splits]
    if missing:
        raise DatasetError(f"{file.uri}: split {missing[0]!r} is missing (an empty one has rows: 0); {PREPARE_AGAIN}")
    return description


def _why_no_description(location: Location) -> str:
    if not location.is_folder():
        return f"{location.uri}: no such folder; make it with jobs/prepare.py --set output={location.uri}"
    if location.child(UNFINISHED_FILE).is_file():
        return f"{location.uri}: its preparation did not finish; {PREPARE_AGAIN} --set overwrite=true"
    return f"{location.uri}: no {DESCRIPTION_FILE} in it, so it is not a dataset folder; {PREPARE_AGAIN}"


def _check_files(location: Location, description: DatasetDescription) -> None:
    found = location.files()
    required = ["users.parquet", "items.parquet"]
    for split in SPLITS:
        if not any(relative.startswith(f"interactions/{split}/") for relative in description.files):
            required.append(f"interactions/{split}/part-00000.parquet")
    for relative in [*required, *description.files]:
        if relative not in found or relative not in description.files:
            raise DatasetError(f"{location.uri}/{relative}: no such file; {PREPARE_AGAIN}")
        if found[relative] != description.files[relative].bytes:
            raise DatasetError(
                f"{location.uri}/{relative}: {found[relative]} bytes, {DESCRIPTION_FILE} says "
                f"{description.files[relative].bytes}; the file is truncated or was changed: {PREPARE_AGAIN}"
            )
