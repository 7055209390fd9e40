"""Middle stages: ids become indices, rows are partitioned by user, repetitions and the k-core's outside are removed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from braidrec.data.scan import Scanned
from braidrec.data.stages import Answer, fetch, run_tasks, share, shuffle_tasks
from braidrec.data.storage import Location, read_parquet
from braidrec.data.writer import write_table
from braidrec.distinct import distinct

Deduplication = Literal["first", "last", "none"]
Columns = dict[str, npt.NDArray[Any]]
Mask = npt.NDArray[np.bool_]

INDICES = pa.large_list(pa.int32())
COUNTS = pa.large_list(pa.int64())
HISTOGRAM_BINS = 1 << 16
BUCKET_COUNTS = ("rows", "repeated", "contradictory", "between_splits", "low_rated")
BUCKET_SCHEMA = pa.schema([("file", pa.string()), *((name, pa.int64()) for name in BUCKET_COUNTS)])
CORE_SCHEMA = pa.schema([("rows", pa.int64()), ("users", INDICES), ("items", INDICES), ("item_counts", COUNTS)])
HISTOGRAM_SCHEMA = pa.schema([("counts", COUNTS), ("least", pa.int64()), ("largest", pa.int64())])


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Parquet files in the staging folder, each with all the rows of some users; ids are places in Scanned's lists."""

    files: tuple[str, ...]
    counts: Mapping[str, int]
    """BUCKET_COUNTS summed: rows kept, repetitions removed, pairs whose rows disagreed, …"""

    @property
    def inputs(self) -> list[dict[str, str]]:
        return [{"file": file} for file in self.files]


@dataclass(frozen=True, kw_only=True)
class Core:
    """What the k-core keeps. A user is kept by having enough rows with kept items, so only the items are listed."""

    staging: Location
    least_user_rows: int
    items_alive: Any
    """Shared bool array [items]."""


@dataclass(frozen=True, kw_only=True)
class CoreResult:
    """The fixed point."""

    core: Core
    rows: int
    users: npt.NDArray[np.int32]
    """Kept users, ascending."""
    items: npt.NDArray[np.int32]
    """Kept items, ascending."""


def make_buckets(
    scanned: Scanned,
    *,
    staging: Location,
    deduplicate: Deduplication,
    min_rating: float | None,
    partition_rows: int,
) -> Buckets:
    """Replace ids by their places, bring the rows of each user together, remove repetitions and low ratings."""
    num_buckets = max(1, -(-scanned.rows // partition_rows))
    produce = partial(
        _index_rows,
        staging=staging,
        user_ids=share(scanned.user_ids),
        item_ids=share(scanned.item_ids),
        num_buckets=num_buckets,
    )
    consume = partial(_write_bucket, staging=staging, deduplicate=deduplicate, min_rating=min_rating)
    inputs = [{"file": file} for file in scanned.files]
    answers = list(
        shuffle_tasks(
            inputs,
            produce,
            consume,
            key="bucket",
            num_keys=num_buckets,
            schema=BUCKET_SCHEMA,
            fits_one_task=num_buckets == 1,
        )
    )
    return Buckets(
        files=tuple(sorted(answer["file"] for answer in answers)),
        counts={name: sum(answer[name] for answer in answers) for name in BUCKET_COUNTS},
    )


def find_core(
    buckets: Buckets, *, staging: Location, num_items: int, least_user_rows: int, least_item_rows: int
) -> CoreResult:
    """Iterate the k-core to its fixed point: one pass over the buckets finds the items that have become too rare.

    Users need no pass of their own, because all rows of a user lie in one bucket.
    """
    alive = np.ones(num_items, np.bool_)
    while True:
        core = Core(staging=staging, least_user_rows=least_user_rows, items_alive=share(alive))
        totals = np.zeros(num_items, np.int64)
        users: list[npt.NDArray[np.int32]] = []
        rows = 0
        for answer in run_tasks(buckets.inputs, partial(_count, core=core), CORE_SCHEMA):
            totals[answer["items"].to_numpy()] += answer["item_counts"].to_numpy()
            users.append(answer["users"].to_numpy())
            rows += answer["rows"]
        too_rare = (totals > 0) & (totals < least_item_rows)
        if not too_rare.any():
            present = np.flatnonzero(totals).astype(np.int32)
            return CoreResult(core=core, rows=rows, users=np.sort(np.concatenate(users)), items=present)
        alive = (totals > 0) & ~too_rare


def nth_time(buckets: Buckets, core: Core, rank: int) -> int:
    """The timestamp at place `rank` (from 0) of all kept rows in order of time, by histograms ever finer."""
    task = partial(_time_histogram, core=core, low=None, width=1)
    answers = list(run_tasks(buckets.inputs, task, HISTOGRAM_SCHEMA))
    low = min(answer["least"] for answer in answers if answer["least"] is not None)
    high = max(answer["largest"] for answer in answers if answer["largest"] is not None)
    while low < high:
        width = -(-(high - low + 1) // HISTOGRAM_BINS)
        counts = np.zeros(HISTOGRAM_BINS, np.int64)
        for answer in run_tasks(
            buckets.inputs, partial(_time_histogram, core=core, low=low, width=width), HISTOGRAM_SCHEMA
        ):
            counts += answer["counts"].to_numpy()
        cumulated = np.cumsum(counts)
        place = int(np.searchsorted(cumulated, rank, side="right"))
        rank -= int(cumulated[place] - counts[place])
        low += place * width
        high = min(high, low + width - 1)
    return int(low)


def load_bucket(core: Core, file: str, names: Sequence[str] | None = None) -> Columns:
    """The kept rows of a bucket, as arrays by column name."""
    table = read_parquet(core.staging.child(file), list(names) if names is not None else None)
    columns: Columns = {name: table.column(name).to_numpy() for name in table.column_names}
    kept = in_core(columns["user"], columns["item"], fetch(core.items_alive), core.least_user_rows)
    return {name: values[kept] for name, values in columns.items()}


def in_core(
    users: npt.NDArray[np.int32], items: npt.NDArray[np.int32], items_alive: Mask, least_user_rows: int
) -> Mask:
    """Rows with a kept item, of users who have enough such rows. All rows of a user must be present."""
    kept: Mask = items_alive[items]
    if least_user_rows > 1 and len(users):
        first = users.min()
        kept &= np.bincount(users[kept] - first, minlength=users.max() - first + 1)[users - first] >= least_user_rows
    return kept


def kept_by_deduplication(columns: Columns, which: Deduplication) -> tuple[Mask, int, int]:
    """Which rows stay when each (user, item) keeps one, how many pairs disagreed in rating or weight, and how many
    lay in two splits.

    "first" and "last" go by timestamp, then by position in the log; without timestamps by position alone.
    """
    rows = len(columns["user"])
    if which == "none" or not rows:
        return np.ones(rows, np.bool_), 0, 0
    times = [columns["timestamp"]] if "timestamp" in columns else []
    order = np.lexsort((columns["position"], *times, columns["item"], columns["user"]))
    users, items = columns["user"][order], columns["item"][order]
    continues = np.r_[False, (users[1:] == users[:-1]) & (items[1:] == items[:-1])]
    pair = np.cumsum(~continues) - 1
    kept = np.zeros(rows, np.bool_)
    kept[order[~continues if which == "first" else np.r_[~continues[1:], True]]] = True
    disagreeing = np.zeros(pair[-1] + 1, np.bool_)
    for name in ("rating", "weight"):
        if name in columns:
            values = columns[name][order]
            disagreeing[pair[continues & np.r_[False, values[1:] != values[:-1]]]] = True
    in_two_splits = np.zeros(pair[-1] + 1, np.bool_)
    if "label" in columns:
        labels = columns["label"][order]
        in_two_splits[pair[continues & np.r_[False, labels[1:] != labels[:-1]]]] = True
    return kept, int(disagreeing.sum()), int(in_two_splits.sum())


def _index_rows(entry: Answer, *, staging: Location, user_ids: Any, item_ids: Any, num_buckets: int) -> Iterator[Any]:
    table = read_parquet(staging.child(entry["file"]))
    known_users = fetch(user_ids)
    users = _places(table.column("user"), known_users)
    bucket = users.to_numpy().astype(np.int64) * num_buckets // len(known_users)
    others = {name: table.column(name) for name in table.column_names if name not in ("user", "item")}
    items = _places(table.column("item"), fetch(item_ids))
    yield pa.table({"user": users, "item": items, **others, "bucket": pa.array(bucket.astype(np.int32))})


def _places(ids: Any, known: Any) -> Any:
    """Place of each id in `known`, by way of the distinct ids, which are fewer."""
    encoded = ids.combine_chunks().dictionary_encode()
    places = pc.index_in(encoded.dictionary.cast(pa.large_string()), value_set=known)
    return places.take(encoded.indices)


def _write_bucket(table: Any, *, staging: Location, deduplicate: Deduplication, min_rating: float | None) -> Answer:
    number = table.column("bucket")[0].as_py()
    table = table.drop_columns(["bucket"])
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    kept, contradictory, between_splits = kept_by_deduplication(columns, deduplicate)
    repeated = int((~kept).sum())
    if min_rating is not None:
        kept &= columns["rating"] >= np.float32(min_rating)
    file = f"buckets/bucket-{number:05d}.parquet"
    write_table(staging.child(file), table.filter(pa.array(kept)))
    rows = int(kept.sum())
    return {
        "file": file,
        "rows": rows,
        "repeated": repeated,
        "contradictory": contradictory,
        "between_splits": between_splits,
        "low_rated": len(kept) - repeated - rows,
    }


def _count(entry: Answer, *, core: Core) -> Iterator[Answer]:
    columns = load_bucket(core, entry["file"], ["user", "item"])
    items, item_counts = np.unique(columns["item"], return_counts=True)
    users = distinct(columns["user"])
    yield {"rows": len(columns["user"]), "users": users, "items": items, "item_counts": item_counts}


def _time_histogram(entry: Answer, *, core: Core, low: int | None, width: int) -> Iterator[Answer]:
    """Without `low`: least and largest time. Otherwise counts of HISTOGRAM_BINS bins of `width` from `low` on."""
    times = load_bucket(core, entry["file"], ["user", "item", "timestamp"])["timestamp"]
    if low is None:
        yield {"least": int(times.min()), "largest": int(times.max())} if len(times) else {}
        return
    bins = (times - low) // width
    inside = bins[(bins >= 0) & (bins < HISTOGRAM_BINS)]
    yield {"counts": np.bincount(inside, minlength=HISTOGRAM_BINS)}
