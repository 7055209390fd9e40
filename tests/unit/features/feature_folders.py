"""Dataset folders and feature tables of a few rows, for tests of what reads them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from braidrec.data.description import SPLITS, FileEntry, ProtocolDescription, features_folder
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.data.writer import DatasetWriter, part_name, write_table
from braidrec.features.build import TableLayout, build_feature_table
from braidrec.features.table import FeatureTable

Vectors = Mapping[str, tuple[Sequence[int], np.ndarray]]
"""By modality: who has it, and their vectors."""


def write_features(path: Path, *, items: Vectors, users: Vectors | None = None, counts=(6, 10)) -> DatasetFolder:
    """A folder of 6 users and 10 items, or as many as `counts` says, with these vectors."""
    writer = DatasetWriter.begin(str(path), seed=1)
    writer.write_users(pa.array([f"u{index}" for index in range(counts[0])]))
    writer.write_items(pa.array([f"i{index}" for index in range(counts[1])]))
    for split in SPLITS:
        writer.write_split(split, {"user": np.zeros(1, np.int32), "item": np.zeros(1, np.int32)})
    for name, (rows, vectors) in items.items():
        writer.write_features(name, np.array(rows), vectors, {"model": "hand"})
    for name, (rows, vectors) in (users or {}).items():
        writer.write_features(name, np.array(rows), vectors, {"model": "hand"}, side="user")
    writer.finish(name="tiny", protocol=ProtocolDescription(kind="given", seed=1), options={})
    return DatasetFolder.open(str(path))


def replace_parts(path: Path, modality: str, tables: Sequence[pa.Table], count: int | None = None) -> DatasetFolder:
    """The folder with other part files for a modality, whose sizes and hashes fit."""
    description = json.loads((path / "dataset.json").read_text())
    inside = features_folder("item", modality)
    files = {name: entry for name, entry in description["files"].items() if not name.startswith(f"{inside}/")}
    for part, table in enumerate(tables):
        name = part_name(inside, part)
        entry: FileEntry = write_table(Location.of(path).child(name), table)
        files[name] = entry.to_plain()
    description["files"] = files
    if count is not None:
        description["modalities"][modality]["num_vectors"] = count
    (path / "dataset.json").write_text(json.dumps(description))
    return DatasetFolder.open(str(path))


def block(ids: Sequence[int], vectors: np.ndarray, *, side: str = "item") -> pa.Table:
    """A table as a reader would hand it on."""
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    lists = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(vectors.shape[1:])))
    return pa.table({side: pa.array(ids, pa.int32()), "vector": lists})


def layout(num_rows: int, dim: int | tuple[int, ...], dtype: str = "float32", **more) -> TableLayout:
    shape = (dim,) if isinstance(dim, int) else dim
    return TableLayout(
        **{"name": "image", "side": "item", "num_rows": num_rows, "shape": shape, "dtype": dtype, "origin": "memory"}
        | more
    )


def table_of(cache: Path, dense: np.ndarray, present: Sequence[int], name: str = "image") -> FeatureTable:
    """A table of `[rows, …]` vectors, of which the rows `present` are there."""
    rows = np.array(sorted(present), np.int64)
    key = hashlib.sha256(dense.tobytes() + rows.tobytes()).hexdigest()
    return build_feature_table(
        [block(rows.tolist(), dense[rows])] if len(rows) else [],
        cache=cache,
        key=key,
        layout=layout(len(dense), dense.shape[1:], str(dense.dtype), name=name),
    )
