"""Parts of an extraction → `features/<modality>/`, sorted by item, and `dataset.json` that says so."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from braidrec.config.base import ConfigError
from braidrec.data.description import (
    DESCRIPTION_FILE,
    DatasetDescription,
    FileEntry,
    ModalityDescription,
    features_folder,
)
from braidrec.data.folder import DatasetFolder
from braidrec.data.stages import Answer, fetch, share, shuffle_tasks
from braidrec.data.storage import Location, read_parquet
from braidrec.data.writer import vector_table, vectors_per_part, write_table
from braidrec.errors import RunError
from braidrec.features.extract.ledger import FINISHED, Ledger, ledger_name, work_name
from braidrec.features.extract.manifest import NO_MEDIUM
from braidrec.features.extract.provenance import METADATA_KEY
from braidrec.training.lease import LEASE_FILES, Lease

REJECTS_FILE, SHEET_FILE = "rejects.parquet", "sheet.html"
SECONDS_TO_PUBLISH = 60.0
PART_SCHEMA = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())])
REJECTS_SCHEMA = pa.schema(
    [("item", pa.int32()), ("item_id", pa.string()), ("reason", pa.string()), ("error", pa.string())]
)


@dataclass(frozen=True, kw_only=True)
class Assembly:
    """What is to be put together."""

    folder: DatasetFolder
    modality: str
    ledger: Ledger
    """Of the items that count."""
    key: str
    facts: Mapping[str, Any]
    """Provenance for the Parquet files."""
    dtype: str
    token: str
    """In the names of the files: no other content ever had it, so that nothing is overwritten."""

    @property
    def home(self) -> Location:
        return home_of(self.folder, self.modality)

    def sources(self) -> list[tuple[str, int]]:
        """Relative paths of all files with vectors, and the number that the ledger has for them."""
        work = f"extracted/{self.modality}/{work_name(self.key)}"
        parts = [(f"{work}/{name}", number) for number, name in enumerate(self.ledger.files)]
        if (self.ledger.part == FINISHED).any():
            parts += [(path, FINISHED) for path in self.folder.parts(features_folder("item", self.modality))]
        return parts


def home_of(folder: DatasetFolder, modality: str) -> Location:
    """Where ledger, rejects, sheet and what an encoder learnt are kept."""
    return folder.location.child(f"extracted/{modality}")


def write_vectors(assembly: Assembly) -> tuple[dict[str, FileEntry], int]:
    """Write `features/<modality>/part-…-<token>.parquet`; give the files and the vectors' dim.

    Old files stay until `dataset.json` no longer names them, so that a killed job leaves a whole data set.

    Raises:
        RunError: no item has a vector, or vectors of several sizes.
    """
    ledger = assembly.ledger
    good = ledger.is_good
    if not good.any():
        raise RunError(f"no item has a vector of {assembly.modality}; the reasons are in {assembly.home.uri}")
    sources = assembly.sources()
    dim = _dim(assembly, sources, ledger.part[good][0])
    itemsize = np.dtype(assembly.dtype).itemsize
    per_part = vectors_per_part((dim,), itemsize)
    present = ledger.items[good]
    produce = partial(
        _rows, folder=assembly.folder.location, present=share(present), part=share(ledger.part[good]),
        per_part=per_part, dim=dim,
    )  # fmt: skip
    consume = partial(
        _write, folder=assembly.folder.location, modality=assembly.modality, token=assembly.token,
        dtype=assembly.dtype, facts=dict(assembly.facts), dim=dim,
    )  # fmt: skip
    num_parts = -(-len(present) // per_part)
    entries: dict[str, FileEntry] = {}
    for answer in shuffle_tasks(
        [{"path": path, "number": number} for path, number in sources],
        produce, consume, key="part", num_keys=num_parts, schema=PART_SCHEMA, fits_one_task=num_parts == 1,
    ):  # fmt: skip
        entries[answer["path"]] = FileEntry(bytes=answer["bytes"], sha256=answer["sha256"])
    return entries, dim


def write_ledger(assembly: Assembly) -> dict[str, FileEntry]:
    path = f"extracted/{assembly.modality}/{ledger_name(assembly.token)}"
    return {path: write_table(assembly.folder.location.child(path), assembly.ledger.table)}


def write_rejects(
    folder: DatasetFolder, modality: str, ledger: Ledger, duplicates: tuple[tuple[int, str], ...],
    without: NDArray[np.int32],
) -> dict[str, int]:  # fmt: skip
    """`extracted/<modality>/rejects.parquet`: items without a vector and further rows of an item; counts by reason.

    It is a report on the last run, not part of the data: `dataset.json` does not list it.
    """
    rejected = ledger.table.filter(pc.is_valid(ledger.table.column("reason")))
    items = np.concatenate([rejected.column("item").to_numpy(), [item for item, _ in duplicates], without])
    nothing = len(without)
    reasons = [*rejected.column("reason").to_pylist(), *["duplicate row"] * len(duplicates), *[NO_MEDIUM] * nothing]
    errors = [
        *rejected.column("error").to_pylist(),
        *[f"{row}: the item's first row counts" for _, row in duplicates],
        *["no row of the manifest is about this item"] * nothing,
    ]
    ids = folder.item_ids().take(pa.array(items.astype(np.int64)))
    columns = {"item": pa.array(items.astype(np.int32)), "item_id": ids, "reason": reasons, "error": errors}
    table = pa.table(columns, schema=REJECTS_SCHEMA).sort_by([("item", "ascending"), ("reason", "ascending")])
    counts = {row["values"].as_py(): row["counts"].as_py() for row in table.column("reason").value_counts()}
    ordered = dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
    write_table(home_of(folder, modality).child(REJECTS_FILE), table)
    return ordered


def publish(
    assembly: Assembly, files: Mapping[str, FileEntry], dim: int, provenance: Mapping[str, Any]
) -> DatasetDescription:
    """Name the new files in `dataset.json`, as it is now, and delete those that it no longer names.

    Raises:
        ConfigError: for a minute, other processes change the same `dataset.json`.
    """
    with _description_lease(assembly.folder.location):
        before, changed = _describe(assembly, files, dim, provenance)
    own = _own_folders(assembly.modality)
    for path in before.files:
        if path.startswith(own) and path not in files:
            assembly.folder.location.child(path).remove()
    kept = (REJECTS_FILE, *LEASE_FILES)  # the sheet shows what was there before
    for name in assembly.home.files():
        if f"extracted/{assembly.modality}/{name}" not in files and name not in kept:
            assembly.home.child(name.partition("/")[0]).remove()
    return changed


@contextmanager
def _description_lease(folder: Location) -> Iterator[None]:
    """Extractions of several modalities may end at the same moment: they wait for each other."""
    deadline = time.monotonic() + SECONDS_TO_PUBLISH
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(Lease(folder, f"{DESCRIPTION_FILE} of"))
                break
            except ConfigError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield


def _own_folders(modality: str) -> tuple[str, str]:
    return f"{features_folder('item', modality)}/", f"extracted/{modality}/"


def _describe(
    assembly: Assembly, files: Mapping[str, FileEntry], dim: int, provenance: Mapping[str, Any]
) -> tuple[DatasetDescription, DatasetDescription]:
    """Write `dataset.json`; how it was and how it is."""
    folder, modality = DatasetFolder.open(assembly.folder.path), assembly.modality
    description, own = folder.description, _own_folders(modality)
    others = {path: entry for path, entry in description.files.items() if not path.startswith(own)}
    count = int(assembly.ledger.is_good.sum())
    described = ModalityDescription(
        dim=dim,
        shape=(dim,),
        dtype="float16" if assembly.dtype == "float16" else "float32",
        num_vectors=count,
        coverage=round(count / folder.num_items, 6),
        provenance=dict(provenance),
    )
    changed = description.model_copy(
        update={
            "modalities": dict(sorted({**description.modalities, modality: described}.items())),
            "files": dict(sorted({**others, **files}.items())),
        }
    )
    folder.location.child(DESCRIPTION_FILE).write_bytes(changed.to_json().encode())
    return description, changed


def _dim(assembly: Assembly, sources: list[tuple[str, int]], number: int) -> int:
    path = next(path for path, own in sources if own == number)
    vectors = read_parquet(assembly.folder.location.child(path), ["vector"]).column("vector").drop_null()
    return len(vectors[0].as_py())


def _rows(
    entry: Answer, *, folder: Location, present: Any, part: Any, per_part: int, dim: int
) -> Iterator[Any]:  # fmt: skip
    table = read_parquet(folder.child(entry["path"]), ["item", "vector"])
    items, all_items, parts = table.column("item").to_numpy(), fetch(present), fetch(part)
    places = np.minimum(np.searchsorted(all_items, items), len(all_items) - 1)
    mine = (all_items[places] == items) & (parts[places] == entry["number"])
    table, places = table.filter(pa.array(mine)), places[mine]
    lengths = pc.list_value_length(table.column("vector")).to_numpy()
    if (lengths != dim).any():
        raise RunError(f"{entry['path']}: a vector of {lengths[lengths != dim][0]} numbers among vectors of {dim}")
    lists = table.column("vector").cast(pa.list_(pa.float32()))
    yield pa.table(
        {"item": table.column("item"), "vector": lists, "part": pa.array((places // per_part).astype(np.int32))}
    )


def _write(
    table: Any, *, folder: Location, modality: str, token: str, dtype: str, facts: Mapping[str, Any], dim: int
) -> Answer:
    number = table.column("part")[0].as_py()
    path = f"{features_folder('item', modality)}/part-{number:05d}-{token}.parquet"
    items = table.column("item").to_numpy()
    # rows of one item can stand in two parts that two starts wrote at the same time: equal, so one is enough
    items, order = np.unique(items, return_index=True)
    flat = table.column("vector").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.reshape(-1, dim)[order].astype(dtype)
    result = vector_table(items, vectors)
    told = json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()
    entry = write_table(folder.child(path), result.replace_schema_metadata({METADATA_KEY: told}))
    return {"path": path, "bytes": entry.bytes, "sha256": entry.sha256}
