"""Writing a dataset folder, byte for byte the same for the same content and seed."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from braidrec.data.description import (
    DESCRIPTION_FILE,
    SPLITS,
    DatasetDescription,
    DroppedEntry,
    FileEntry,
    MediaDescription,
    ModalityDescription,
    ProtocolDescription,
    RelationDescription,
    Side,
    Split,
    SplitDescription,
    features_folder,
)
from braidrec.data.errors import DatasetError
from braidrec.data.folder import COLUMN_TYPES, UNFINISHED_FILE
from braidrec.data.storage import Location

ROWS_PER_GROUP = 1 << 18
FEATURE_BYTES_PER_PART = 64 << 20

Integers = npt.NDArray[np.integer[Any]]


def mix64(values: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """A seeded permutation of the 64-bit integers: the finaliser of splitmix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        mixed = values + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & 0xFFFFFFFFFFFFFFFF)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def pair_keys(users: Integers, items: Integers, seed: int) -> npt.NDArray[np.uint64]:
    """One pseudo-random 64-bit key a (user, item) pair, different for different pairs.

    Rows are stored in the order of these keys, so that any stretch of a file is a random sample of the split and a
    reader that streams needs to shuffle only locally.
    """
    pairs = (users.astype(np.uint64) << np.uint64(32)) | items.astype(np.uint64)
    return mix64(pairs, seed)


def number_of_parts(rows: int, part_rows: int) -> int:
    return max(1, -(-rows // part_rows))


def part_of(keys: npt.NDArray[np.uint64], parts: int) -> npt.NDArray[np.int64]:
    """Part file of each key; parts are ranges of keys, so the concatenated parts are in the order of the keys."""
    return (((keys >> np.uint64(32)) * np.uint64(parts)) >> np.uint64(32)).astype(np.int64)


def part_name(folder: str, part: int) -> str:
    return f"{folder}/part-{part:05d}.parquet"


def in_stored_order(table: Any, seed: int) -> Any:
    """The rows of an interactions table by `pair_keys`; repeated pairs by their other columns."""
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    keys = pair_keys(columns["user"], columns["item"], seed)
    tie_breakers = [columns[name] for name in reversed(table.column_names) if name not in ("user", "item")]
    order = np.lexsort([*tie_breakers, keys]) if tie_breakers else np.argsort(keys, kind="stable")
    return pa.table({name: values[order] for name, values in columns.items()}, schema=table.schema)


def write_table(location: Location, table: Any) -> FileEntry:
    """Write one Parquet file and return its size and hash."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks(), sink, compression="zstd", row_group_size=ROWS_PER_GROUP, write_statistics=True
    )
    content = sink.getvalue()
    location.write_bytes(content)
    return FileEntry(bytes=content.size, sha256=hashlib.sha256(content).hexdigest())


def vector_table(
    items: Integers, vectors: npt.NDArray[Any], side: Side = "item", lengths: Integers | None = None
) -> Any:
    """`item:int32 vector:fixed_size_list<float16|float32>[dim]` (or `user:int32 …`) of [n] ids and [n, …] vectors.

    Args:
        lengths: `[n]` how many of a row's components are real; the others are not stored: `vector:list<…>`.
    """
    if lengths is not None:
        real = np.arange(vectors.shape[1]) < np.asarray(lengths)[:, None]
        ends = np.concatenate([[0], np.cumsum(np.asarray(lengths) * vectors.shape[2])]).astype(np.int32)
        lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(vectors[real].reshape(-1)))
        return pa.table({side: pa.array(items.astype(np.int32)), "vector": lists})
    flat = np.ascontiguousarray(vectors).reshape(-1)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(flat), int(np.prod(vectors.shape[1:])))
    return pa.table({side: pa.array(items.astype(np.int32)), "vector": lists})


def vectors_per_part(shape: Sequence[int], itemsize: int) -> int:
    return max(1, FEATURE_BYTES_PER_PART // (int(np.prod(shape)) * itemsize))


@dataclass(kw_only=True)
class DatasetWriter:
    """Collects what has been written into a folder and closes it with `dataset.json`.

    Until `finish` the folder holds a file UNFINISHED and no `dataset.json`, so that nobody takes it for a data set.
    """

    location: Location
    seed: int
    part_rows: int = 2_000_000
    files: dict[str, FileEntry] = field(default_factory=dict)
    splits: dict[Split, SplitDescription] = field(default_factory=dict)
    modalities: dict[Side, dict[str, ModalityDescription]] = field(default_factory=lambda: {"item": {}, "user": {}})
    relations: dict[str, RelationDescription] = field(default_factory=dict)
    media: dict[str, MediaDescription] = field(default_factory=dict)
    num_users: int = 0
    num_items: int = 0
    replaced: Location | None = None
    """The data set that stood here, set aside until the new one is complete."""

    @classmethod
    def begin(cls, path: str, *, seed: int, overwrite: bool = False, part_rows: int = 2_000_000) -> "DatasetWriter":
        """Claim `path`; with `overwrite` a new data set takes the place of the one that it holds.

        On a local disk the old one stands aside until `finish`, and `abandon` brings it back. An object store cannot
        rename a folder: there it is removed at once.

        Raises:
            DatasetError: the folder holds something and may not be overwritten, or holds no data set.
        """
        location = Location.of(path)
        if location.is_file():
            raise DatasetError(f"{location.uri}: is a file; name a folder for the data set")
        present = location.files()
        if present:
            is_dataset = DESCRIPTION_FILE in present or UNFINISHED_FILE in present
            if not is_dataset:
                raise DatasetError(
                    f"{location.uri}: holds {len(present)} files (such as {next(iter(present))}) and is no dataset "
                    "folder, so nothing in it is touched; name an empty or new folder"
                )
            if not overwrite:
                state = "a data set already" if DESCRIPTION_FILE in present else "an unfinished preparation"
                raise DatasetError(f"{location.uri}: holds {state}; name another folder or set overwrite=true")
        replaced = _set_aside(location, is_whole=DESCRIPTION_FILE in present) if present else None
        location.child(UNFINISHED_FILE).write_bytes(b"This data set is being prepared, or its preparation failed.\n")
        return cls(location=location, seed=seed, part_rows=part_rows, replaced=replaced)

    def add(self, relative: str, table: Any) -> None:
        """Write one Parquet file."""
        self.record(relative, write_table(self.location.child(relative), table))

    def record(self, relative: str, entry: FileEntry) -> None:
        """Note a file that was written elsewhere, for instance by a Ray task."""
        self.files[relative] = entry

    def write_users(self, user_ids: Any) -> None:
        """`users.parquet` from the users' own ids in index order."""
        self.num_users = len(user_ids)
        index = pa.array(np.arange(len(user_ids), dtype=np.int32))
        self.add("users.parquet", pa.table({"user": index, "user_id": user_ids.cast(pa.string())}))

    def write_items(self, item_ids: Any, extra: Mapping[str, Any] | None = None) -> None:
        """`items.parquet` from the items' own ids in index order, with further columns of the same length."""
        self.num_items = len(item_ids)
        index = pa.array(np.arange(len(item_ids), dtype=np.int32))
        self.add(
            "items.parquet",
            pa.table({"item": index, "item_id": item_ids.cast(pa.string()), **(extra or {})}),
        )

    def write_split(self, split: Split, columns: Mapping[str, npt.NDArray[Any]]) -> None:
        """A whole split held in memory: `user`, `item` and any of `timestamp`, `rating`, `weight`."""
        schema = pa.schema([(name, kind) for name, kind in COLUMN_TYPES.items() if name in columns])
        table = in_stored_order(
            pa.table({name: pa.array(columns[name], kind) for name, kind in COLUMN_TYPES.items() if name in columns}),
            self.seed,
        )
        keys = pair_keys(table.column("user").to_numpy(), table.column("item").to_numpy(), self.seed)
        parts = number_of_parts(table.num_rows, self.part_rows)
        bounds = np.searchsorted(part_of(keys, parts), np.arange(parts + 1))
        for part in range(parts):
            rows = table.slice(bounds[part], bounds[part + 1] - bounds[part])
            self.add(part_name(f"interactions/{split}", part), rows)
        self.describe_split(split, table.num_rows, schema.names)

    def describe_split(self, split: Split, rows: int, columns: Sequence[str]) -> None:
        self.splits[split] = SplitDescription(
            rows=rows,
            has_timestamp="timestamp" in columns,
            has_rating="rating" in columns,
            has_weight="weight" in columns,
        )

    def write_features(
        self,
        modality: str,
        items: Integers,
        vectors: npt.NDArray[Any],
        provenance: Mapping[str, Any],
        side: Side = "item",
        lengths: Integers | None = None,
    ) -> None:
        """Vectors held in memory ([n, …], float16 or float32) of the items (users) that have one.

        Args:
            lengths: [n] how many components each has, from 1 to the [n, most, …] that there is room for; None: all.
        """
        order = np.argsort(items, kind="stable")
        size = vectors_per_part(vectors.shape[1:], vectors.dtype.itemsize)
        for part, start in enumerate(range(0, max(1, len(items)), size)):
            rows = order[start : start + size]
            path = part_name(features_folder(side, modality), part)
            of_rows = None if lengths is None else lengths[rows]
            self.add(path, vector_table(items[rows], vectors[rows], side, of_rows))
        self.describe_modality(
            modality, vectors.shape[1:], str(vectors.dtype), len(items), provenance, side, ragged=lengths is not None
        )

    def describe_modality(
        self,
        modality: str,
        shape: Sequence[int],
        dtype: str,
        count: int,
        provenance: Mapping[str, Any],
        side: Side = "item",
        *,
        ragged: bool = False,
    ) -> None:
        assert dtype in ("float16", "float32"), dtype
        self.modalities[side][modality] = ModalityDescription(
            dim=int(np.prod(shape)),
            shape=tuple(int(size) for size in shape),
            ragged=ragged,
            dtype="float16" if dtype == "float16" else "float32",
            num_vectors=count,
            coverage=round(count / (self.num_items if side == "item" else self.num_users), 6),
            provenance=dict(provenance),
        )

    def write_relation(
        self,
        name: str,
        sources: Integers,
        destinations: Integers,
        between: Literal["items", "users"] = "items",
        weights: npt.NDArray[np.float32] | None = None,
    ) -> None:
        """Edges between items, or between users: two int arrays [rows], and what each counts."""
        columns = {"src": pa.array(sources, pa.int32()), "dst": pa.array(destinations, pa.int32())}
        if weights is not None:
            columns["weight"] = pa.array(weights, pa.float32())
        self.add(part_name(f"relations/{name}", 0), pa.table(columns))
        self.relations[name] = RelationDescription(between=between, rows=len(sources), has_weight=weights is not None)

    def abandon(self) -> None:
        """Remove all that was written; the data set that was to be replaced comes back."""
        self.location.remove()
        if self.replaced is not None:
            self.replaced.rename(self.location)

    def finish(
        self,
        *,
        name: str,
        protocol: ProtocolDescription,
        options: Mapping[str, Any],
        dropped: Sequence[DroppedEntry] = (),
        notes: Sequence[str] = (),
    ) -> DatasetDescription:
        """Write `dataset.json` last and take the UNFINISHED mark away."""
        assert set(self.splits) == set(SPLITS), sorted(self.splits)
        description = DatasetDescription(
            name=name,
            num_users=self.num_users,
            num_items=self.num_items,
            splits={split: self.splits[split] for split in SPLITS},
            protocol=protocol,
            options=dict(options),
            modalities=dict(sorted(self.modalities["item"].items())),
            user_modalities=dict(sorted(self.modalities["user"].items())),
            relations=dict(sorted(self.relations.items())),
            media=dict(sorted(self.media.items())),
            dropped=tuple(dropped),
            notes=tuple(notes),
            files=dict(sorted(self.files.items())),
        )
        self.location.child(DESCRIPTION_FILE).write_bytes(description.to_json().encode())
        self.location.child(UNFINISHED_FILE).remove()
        if self.replaced is not None:
            self.replaced.remove()
        return description


def _set_aside(location: Location, *, is_whole: bool) -> Location | None:
    """Clear `location`; where the data set went that a failed preparation should bring back."""
    aside = location.sibling(f".{location.name}.replaced")
    if not location.is_local:
        location.remove()
        return None
    if not is_whole:  # an unfinished preparation; if it was killed, what it set out to replace still stands aside
        location.remove()
        return aside if aside.is_folder() else None
    aside.remove()
    location.rename(aside)
    return aside
