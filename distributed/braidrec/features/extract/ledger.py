"""What has been computed already: by item, the hash of its medium and how it went.

A finished extraction leaves its ledger in `extracted/<modality>/ledger-<token>.parquet`; one under way writes parts
with the vectors beside it, in `extracted/<modality>/work-<key>/`. The key identifies the encoder and its settings, so
that a part made with other settings is never taken for a current one.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from braidrec.config.extract import LimitsConfig
from braidrec.data.storage import Location, read_parquet

HASH_BYTES = 16
LEDGER_SCHEMA = pa.schema(
    [
        ("item", pa.int32()),
        ("source", pa.binary(HASH_BYTES)),
        ("reason", pa.string()),
        ("error", pa.string()),
        ("limits", pa.string()),
    ]
)
LEDGER_COLUMNS = LEDGER_SCHEMA.names
TRANSIENT = ("encoder failed", "unreadable")
"""Reasons that say nothing about the medium alone: memory that ran out, a disk that did not answer. Tried again."""
FINISHED = -1
"""In the place of a part's number: the item's vector is in `features/<modality>/`."""


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """One row an item, ascending.

    Attributes:
        table: `LEDGER_SCHEMA`; `source` is null where the medium could not be read, `reason` where there is a vector.
            `limits` are those by which it was judged, as `limits_text` writes them.
        part: `[rows]` which of `files` holds the item's row, or FINISHED.
        files: parts under way.
    """

    table: Any
    part: NDArray[np.int32]
    files: tuple[str, ...]

    @property
    def items(self) -> NDArray[np.int32]:
        found: NDArray[np.int32] = self.table.column("item").to_numpy()
        return found

    def only(self, items: NDArray[np.int32]) -> "Ledger":
        """The rows of some items."""
        mask = np.isin(self.items, items)
        return Ledger(table=self.table.filter(pa.array(mask)), part=self.part[mask], files=self.files)

    def failed(self) -> Mapping[str, int]:
        """Rejected items by reason."""
        counts = self.table.column("reason").drop_null().value_counts()
        return {row["values"].as_py(): row["counts"].as_py() for row in counts}

    @property
    def is_good(self) -> NDArray[np.bool_]:
        """`[rows]` whether there is a vector."""
        found: NDArray[np.bool_] = self.table.column("reason").is_null().to_numpy()
        return found

    def current(self, limits: LimitsConfig) -> "Current":
        """What need not be computed again. Tried anew are a medium that could not be read, one that other limits
        rejected, and one that was let in by limits of which any was wider than now."""
        reasons = self.table.column("reason")
        tried_anew = pc.fill_null(pc.is_in(reasons, value_set=pa.array(TRANSIENT)), False).to_numpy()
        known = self.table.column("source").is_valid().to_numpy() & ~tried_anew & self._judged_alike(limits)
        hashes = self.table.column("source").filter(pa.array(known))
        return Current(items=self.items[known], hashes=_fixed_size(hashes), rejected=~self.is_good[known])

    def _judged_alike(self, limits: LimitsConfig) -> NDArray[np.bool_]:
        """`[rows]` whether these limits would come to the same."""
        by = self.table.column("limits").combine_chunks().dictionary_encode()
        before = by.dictionary.to_pylist()
        same = np.array([text == limits_text(limits) for text in before], dtype=np.bool_)
        wider = np.array([_no_stricter(limits.to_plain(), json.loads(text)) for text in before], dtype=np.bool_)
        place = by.indices.to_numpy()
        alike: NDArray[np.bool_] = same[place] | (wider[place] & self.is_good)
        return alike

    def digest(self, key: str) -> str:
        """Eight digits over a key, the items, the hashes of their media, and which were rejected why."""
        digest = hashlib.sha256(key.encode() + self.items.tobytes())
        for name in ("source", "reason", "error"):
            column = self.table.column(name)
            digest.update(column.is_null().to_numpy().tobytes())
            if name == "source":
                digest.update(_fixed_size(column.drop_null()).tobytes())
            else:  # few: texts stand beside rejected items only
                digest.update(json.dumps(column.drop_null().to_pylist()).encode())
        return digest.hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class Current:
    """Hashes of media that are done, for tasks to look up."""

    items: NDArray[np.int32]
    hashes: NDArray[np.void]
    rejected: NDArray[np.bool_]

    def status(self, item: int, source: bytes) -> str | None:
        """ "kept" or "kept reject" if the medium has not changed, else None."""
        place = int(np.searchsorted(self.items, item))
        if place == len(self.items) or self.items[place] != item:
            return None
        if self.hashes[place].tobytes() != source:
            return None
        return "kept reject" if self.rejected[place] else "kept"


def hash_of(content: bytes | str) -> bytes:
    """Of a medium."""
    content = content.encode(errors="surrogatepass") if isinstance(content, str) else content
    return hashlib.blake2b(content, digest_size=HASH_BYTES).digest()


def limits_text(limits: LimitsConfig) -> str:
    """As the ledger keeps them."""
    return json.dumps(limits.to_plain(), sort_keys=True)


def _no_stricter(now: Mapping[str, float], then: Mapping[str, float]) -> bool:
    """Whether all that passed then would pass now."""
    upper = [name for name in now if name.startswith("max_")]
    return all(now[name] >= then[name] if name in upper else now[name] <= then[name] for name in now)


def read_ledger(home: Location, key: str, published: Mapping[str, Any]) -> Ledger:
    """The finished ledger, if it was made with this key, and over it the parts under way, the later the stronger.

    Args:
        published: the modality's provenance in `dataset.json`; empty where there is none.
    """
    tables, parts = [LEDGER_SCHEMA.empty_table()], [np.zeros(0, np.int32)]
    if published.get("key") == key:
        tables.append(read_parquet(home.child(ledger_name(published["token"])), LEDGER_COLUMNS))
        parts.append(np.full(tables[-1].num_rows, FINISHED, np.int32))
    work = home.child(work_name(key))
    files = tuple(name for name in work.files() if name.endswith(".parquet"))
    for number, name in enumerate(files):
        tables.append(read_parquet(work.child(name), LEDGER_COLUMNS))
        parts.append(np.full(tables[-1].num_rows, number, np.int32))
    table = pa.concat_tables([each.cast(LEDGER_SCHEMA) for each in tables])
    part = np.concatenate(parts)
    items = table.column("item").to_numpy()
    # the last of each item: the first when read backwards
    _, backwards = np.unique(items[::-1], return_index=True)
    rows = len(items) - 1 - backwards
    return Ledger(table=table.take(pa.array(rows)).combine_chunks(), part=part[rows], files=files)


def _fixed_size(hashes: Any) -> NDArray[np.void]:
    """A column of hashes, none of them null, as an array."""
    joined = pa.concat_arrays(hashes.chunks) if hashes.num_chunks else pa.array([], pa.binary(HASH_BYTES))
    if not len(joined):
        return np.zeros(0, f"V{HASH_BYTES}")
    buffer = joined.buffers()[1]
    start = joined.offset
    return np.frombuffer(buffer, f"V{HASH_BYTES}")[start : start + len(joined)]


def ledger_name(token: str) -> str:
    return f"ledger-{token}.parquet"


def work_name(key: str) -> str:
    return f"work-{key[:16]}"


def next_generation(files: tuple[str, ...]) -> int:
    """Parts of a later start sort after all earlier ones."""
    return 1 + max((int(name.partition("-")[0]) for name in files), default=0)
