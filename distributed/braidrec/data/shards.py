"""Last stages: every row gets its split, then the splits are written in their stored order."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from braidrec.config.prepare import (
    ColdItemsSplitConfig,
    ColdUsersSplitConfig,
    GivenSplitConfig,
    GlobalMomentSplitConfig,
    GlobalTimeSplitConfig,
    LeaveOneOutSplitConfig,
    RandomRatioSplitConfig,
    RandomSplitConfig,
    SplitConfig,
    UserTimeSplitConfig,
)
from braidrec.data import splits
from braidrec.data.buckets import INDICES, Buckets, Columns, CoreResult, load_bucket, nth_time
from braidrec.data.description import SPLITS, FileEntry
from braidrec.data.folder import COLUMN_TYPES
from braidrec.data.randomness import seed_for
from braidrec.data.stages import Answer, fetch, run_tasks, share, shuffle_tasks
from braidrec.data.storage import Location, read_parquet
from braidrec.data.writer import (
    in_stored_order,
    mix64,
    number_of_parts,
    pair_keys,
    part_name,
    part_of,
    write_table,
)
from braidrec.distinct import distinct

UnknownUsers = Literal["refuse", "drop", "keep"]

LABEL_COUNTS = (*SPLITS, "unknown_users", "unknown_rows", "repeats_train")
LABEL_SCHEMA = pa.schema(
    [
        ("file", pa.string()),
        *((name, pa.int64()) for name in LABEL_COUNTS),
        ("example", pa.int64()),
        ("users", INDICES),
        ("items", INDICES),
    ]
)
PART_SCHEMA = pa.schema([("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())])


@dataclass(frozen=True, kw_only=True)
class SplitRule:
    """A split protocol with all that its labels depend on beside the rows of a bucket."""

    protocol: SplitConfig
    seed: int
    moments: tuple[int, int] = (0, 0)
    """Global time: first milliseconds of valid and of test."""
    held_out: Any = None
    """Cold items or users: shared int8 label of each item or user."""
    facts: Mapping[str, int] = field(default_factory=dict)
    """What was decided from the data, for `dataset.json`."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Rows with their splits, in the staging folder."""

    files: tuple[str, ...]
    counts: Mapping[str, int]
    """LABEL_COUNTS summed: rows of each split, users (and their rows) unknown to train, …"""
    unknown_example: int | None
    """The index of a user who is not in train."""
    users: npt.NDArray[np.int32]
    """Users that have a row, ascending, as places in Scanned's list."""
    items: npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True)
class PartPlan:
    """Part files of all splits, numbered through: the key by which rows are shuffled before they are written."""

    numbers: tuple[int, ...]
    """Part files of each split."""

    def first_key(self, label: int) -> int:
        return sum(self.numbers[:label])

    def path_of(self, key: int) -> str:
        label = max(label for label in range(len(self.numbers)) if self.first_key(label) <= key)
        return part_name(f"interactions/{SPLITS[label]}", key - self.first_key(label))


def make_rule(protocol: SplitConfig, *, seed: int, buckets: Buckets, core: CoreResult, num_ids: int) -> SplitRule:
    """Decide what needs all of the data: the moments of a global split, the cold items or users.

    Args:
        num_ids: length of Scanned's list of items (cold items) or users (cold users).
    """
    if isinstance(protocol, GlobalTimeSplitConfig | GlobalMomentSplitConfig):
        moments = _moments(protocol, buckets, core)
        facts = {"valid_from_seconds": moments[0] // 1000, "test_from_seconds": moments[1] // 1000}
        return SplitRule(protocol=protocol, seed=seed, moments=moments, facts=facts)
    if isinstance(protocol, ColdItemsSplitConfig | ColdUsersSplitConfig):
        keys = mix64(np.arange(num_ids, dtype=np.uint64), seed_for(seed, protocol.kind))
        alive = np.zeros(num_ids, np.bool_)
        alive[core.items if isinstance(protocol, ColdItemsSplitConfig) else core.users] = True
        labels = splits.label_held_out_ids(keys, alive, protocol.valid, protocol.test)
        facts = {f"held_out_{split}": int((labels == place).sum()) for place, split in enumerate(SPLITS) if place}
        return SplitRule(protocol=protocol, seed=seed, held_out=share(labels), facts=facts)
    return SplitRule(protocol=protocol, seed=seed)


def label_buckets(
    rule: SplitRule, buckets: Buckets, core: CoreResult, *, staging: Location, unknown_users: UnknownUsers
) -> Labelled:
    """Label every kept row; rows of users who are not in train are removed if they shall be dropped."""
    task = partial(_label_bucket, rule=rule, core=core.core, staging=staging, unknown_users=unknown_users)
    answers = list(run_tasks(buckets.inputs, task, LABEL_SCHEMA))
    examples = [answer["example"] for answer in answers if answer["example"] is not None]
    return Labelled(
        files=tuple(sorted(answer["file"] for answer in answers)),
        counts={name: sum(answer[name] for answer in answers) for name in LABEL_COUNTS},
        unknown_example=min(examples) if examples else None,
        users=_union([answer["users"] for answer in answers]),
        items=_union([answer["items"] for answer in answers]),
    )


def label_rows(rule: SplitRule, columns: Columns) -> splits.Labels:
    """The split of each row. All rows of a user must be present."""
    protocol, users, items = rule.protocol, columns["user"], columns["item"]
    if isinstance(protocol, GivenSplitConfig):
        given: splits.Labels = columns["label"]
        return given
    if isinstance(protocol, GlobalTimeSplitConfig | GlobalMomentSplitConfig):
        return splits.label_by_time(columns["timestamp"], *rule.moments)
    if isinstance(protocol, ColdItemsSplitConfig | ColdUsersSplitConfig):
        held_out: splits.Labels = fetch(rule.held_out)
        return held_out[items if isinstance(protocol, ColdItemsSplitConfig) else users]
    by_time = isinstance(protocol, UserTimeSplitConfig) or (
        isinstance(protocol, LeaveOneOutSplitConfig) and protocol.order == "time"
    )
    if by_time:
        order = splits.order_by_time(users, columns["timestamp"], columns["position"])
    else:
        keys = pair_keys(users, items, seed_for(rule.seed, "split"))
        order = splits.order_by_key(users, keys, columns["position"])
    ranks, sizes = splits.ranks_within_users(users, order)
    return splits.label_tail(ranks, sizes, *_held_out(protocol, sizes))


def write_splits(
    labelled: Labelled,
    *,
    staging: Location,
    output: Location,
    seed: int,
    part_rows: int,
    user_places: int,
    item_places: int,
    names: tuple[str, ...],
) -> dict[str, FileEntry]:
    """Write `interactions/…` with final indices, every part file by its own task.

    Args:
        part_rows: rows of one file, at most about.
        user_places, item_places: lengths of Scanned's lists.
        names: columns to write.
    """
    plan = PartPlan(numbers=tuple(number_of_parts(labelled.counts[split], part_rows) for split in SPLITS))
    schema = pa.schema([(name, kind) for name, kind in COLUMN_TYPES.items() if name in names])
    produce = partial(
        _final_rows,
        staging=staging,
        schema=schema,
        seed=seed,
        user_index=share(_final_index(labelled.users, user_places)),
        item_index=share(_final_index(labelled.items, item_places)),
        plan=plan,
    )
    consume = partial(_write_part, output=output, plan=plan, seed=seed)
    inputs = [{"file": file} for file in labelled.files]
    answers = shuffle_tasks(
        inputs,
        produce,
        consume,
        key="part",
        num_keys=sum(plan.numbers),
        schema=PART_SCHEMA,
        # A bucket is what one task can hold.
        fits_one_task=len(inputs) == 1,
    )
    entries = {a["path"]: FileEntry(bytes=a["bytes"], sha256=a["sha256"]) for a in answers}
    for split in SPLITS:
        if not labelled.counts[split]:
            path = part_name(f"interactions/{split}", 0)
            entries[path] = write_table(output.child(path), schema.empty_table())
    return entries


def _moments(
    protocol: GlobalTimeSplitConfig | GlobalMomentSplitConfig, buckets: Buckets, core: CoreResult
) -> tuple[int, int]:
    if isinstance(protocol, GlobalMomentSplitConfig):
        return protocol.valid_from * 1000, protocol.test_from * 1000
    num_test = int(np.floor(core.rows * protocol.test + 0.5))
    num_valid = int(np.floor(core.rows * protocol.valid + 0.5))
    after_all = nth_time(buckets, core.core, core.rows - 1) + 1
    test_from = nth_time(buckets, core.core, core.rows - num_test) if num_test else after_all
    first_valid = core.rows - num_test - num_valid
    valid_from = nth_time(buckets, core.core, first_valid) if num_valid else test_from
    return valid_from, test_from


def _held_out(protocol: SplitConfig, sizes: splits.Ids) -> tuple[splits.Ids, splits.Ids]:
    if isinstance(protocol, LeaveOneOutSplitConfig):
        return splits.held_out_one(sizes)
    if isinstance(protocol, RandomSplitConfig):
        return splits.held_out_mmrec(sizes)
    assert isinstance(protocol, RandomRatioSplitConfig | UserTimeSplitConfig), protocol
    return splits.held_out_shares(sizes, protocol.valid, protocol.test)


def _label_bucket(
    entry: Answer, *, rule: SplitRule, core: Any, staging: Location, unknown_users: UnknownUsers
) -> Iterator[Answer]:
    columns = load_bucket(core, entry["file"])
    labels = label_rows(rule, columns)
    unknown = splits.users_without_train(columns["user"], labels)
    strangers = distinct(columns["user"][unknown])
    columns["label"] = labels
    del columns["position"]
    if unknown_users == "drop":
        columns = {name: values[~unknown] for name, values in columns.items()}
    file = entry["file"].replace("buckets/", "labelled/")
    write_table(staging.child(file), pa.table(columns))
    rows: Answer = {split: int((columns["label"] == place).sum()) for place, split in enumerate(SPLITS)}
    yield {
        "file": file,
        **rows,
        "unknown_users": len(strangers),
        "unknown_rows": int(unknown.sum()),
        "repeats_train": _rows_that_repeat_train(columns),
        "example": int(strangers[0]) if len(strangers) else None,
        "users": distinct(columns["user"]),
        "items": distinct(columns["item"]),
    }


def _rows_that_repeat_train(columns: Columns) -> int:
    """Rows outside train whose (user, item) is in train as well: possible where repetitions are kept."""
    pairs = (columns["user"].astype(np.int64) << 32) | columns["item"]
    outside = columns["label"] != splits.TRAIN
    return int(np.isin(pairs[outside], pairs[~outside]).sum())


def _union(lists: list[Any]) -> npt.NDArray[np.int32]:
    return distinct(np.concatenate([values.to_numpy() for values in lists])).astype(np.int32)


def _final_index(present: npt.NDArray[np.int32], places: int) -> npt.NDArray[np.int32]:
    index = np.full(places, -1, np.int32)
    index[present] = np.arange(len(present), dtype=np.int32)
    return index


def _final_rows(
    entry: Answer,
    *,
    staging: Location,
    schema: Any,
    seed: int,
    user_index: Any,
    item_index: Any,
    plan: PartPlan,
) -> Iterator[Any]:
    table = read_parquet(staging.child(entry["file"]))
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    columns["user"] = fetch(user_index)[columns["user"]]
    columns["item"] = fetch(item_index)[columns["item"]]
    if "timestamp" in columns:
        columns["timestamp"] = columns["timestamp"] // 1000
    keys = pair_keys(columns["user"], columns["item"], seed)
    parts = np.zeros(len(keys), np.int32)
    for label, number in enumerate(plan.numbers):
        rows = columns["label"] == label
        parts[rows] = plan.first_key(label) + part_of(keys[rows], number)
    arrays = {field.name: pa.array(columns[field.name], field.type) for field in schema}
    yield pa.table({**arrays, "part": parts})


def _write_part(table: Any, *, output: Location, plan: PartPlan, seed: int) -> Answer:
    path = plan.path_of(table.column("part")[0].as_py())
    entry = write_table(output.child(path), in_stored_order(table.drop_columns(["part"]), seed))
    return {"path": path, "bytes": entry.bytes, "sha256": entry.sha256}
