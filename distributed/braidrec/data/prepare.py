"""Raw logs → a dataset folder, in stages that Ray Data runs in parallel (docs/dataset-format.md).

scan → bucket by user, de-duplicate → k-core → split → write, then vectors, item descriptions and `dataset.json`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from braidrec.config.prepare import (
    ColdUsersSplitConfig,
    GivenSplitConfig,
    PrepareConfig,
    RandomSplitConfig,
    SplitConfig,
)
from braidrec.data.buckets import BUCKET_COUNTS, Buckets, CoreResult, find_core, make_buckets
from braidrec.data.catalogue import (
    Catalogue,
    ParsedCatalogue,
    configured_catalogue,
    parse_catalogue,
    write_catalogue,
    write_media_folder,
)
from braidrec.data.description import (
    DESCRIPTION_FILE,
    SPLITS,
    USER_FEATURES,
    DatasetDescription,
    DroppedEntry,
    ProtocolDescription,
    Split,
)
from braidrec.data.edges import EdgeSource, configured_edges, write_edges
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.importers import IMPORTERS
from braidrec.data.importers.raw import RawData
from braidrec.data.scan import Scanned, check_logs, scan
from braidrec.data.shards import Labelled, label_buckets, make_rule, write_splits
from braidrec.data.stages import ray_session
from braidrec.data.storage import Location
from braidrec.data.vectors import VectorSource, check_vectors, configured_source, write_vectors
from braidrec.data.writer import DatasetWriter

STAGING_FOLDER = ".staging"
NOT_PART_OF_THE_DATA = ("output", "overwrite", "name", "seed", "split", "partition_rows")
PATH_KEYS = ("path", "paths", "train", "valid", "test", "reviews", "metadata", "vectors", "ids", "folder")

Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PrepareResult:
    """What a preparation made."""

    path: str
    description: DatasetDescription

    @property
    def num_users(self) -> int:
        return self.description.num_users

    @property
    def num_items(self) -> int:
        return self.description.num_items

    @property
    def rows(self) -> Mapping[Split, int]:
        """Interactions of each split."""
        return {split: self.description.splits[split].rows for split in SPLITS}

    @property
    def dropped(self) -> tuple[DroppedEntry, ...]:
        return self.description.dropped


@dataclass(frozen=True, kw_only=True)
class _Inspected:
    raw: RawData
    vectors: tuple[VectorSource, ...]
    catalogue: Catalogue | None
    edges: tuple[EdgeSource, ...]
    protocol: SplitConfig


def prepare(config: PrepareConfig, *, report: Report = lambda _: None) -> PrepareResult:
    """Prepare a data set.

    Args:
        report: told, in words, what is being done.
    Raises:
        DatasetError: bad input, or an output folder that may not be written. Headers, columns and the protocol's needs
            are checked before anything is read, values while reading. What was written is removed.
    """
    inspected = _inspect(config)
    writer = DatasetWriter.begin(
        config.output, seed=config.seed, overwrite=config.overwrite, part_rows=config.part_rows
    )
    staging = writer.location.child(STAGING_FOLDER)
    try:
        report("starting Ray")
        with ray_session():
            description = _Preparation(config, inspected, writer, staging, report).run()
    except BaseException:
        writer.abandon()
        raise
    staging.remove()
    if description.modalities:
        report("looking whether the vectors belong to the items")
        description = _with_doubts(writer.location, description)
    return PrepareResult(path=writer.location.uri, description=description)


def _with_doubts(location: Location, description: DatasetDescription) -> DatasetDescription:
    """The description with a note a modality that says no more about interactions than chance does."""
    from braidrec.features.extract.probe import suspicious  # torch takes seconds to import

    # No numbers: the same configuration gives the same bytes, and rounding depends on the machine.
    notes = [
        f"features/{name}: {probe.split} interactions of {probe.users} users are ranked no better by these vectors "
        "than by the same vectors dealt out at random; if they should mean something, are they of these items?"
        for name, probe in suspicious(DatasetFolder.open(location.uri)).items()
    ]
    if not notes:
        return description
    changed = description.model_copy(update={"notes": (*description.notes, *notes)})
    location.child(DESCRIPTION_FILE).write_bytes(changed.to_json().encode())
    return changed


def _inspect(config: PrepareConfig) -> _Inspected:
    """Look at headers and refuse what cannot work, before anything is written."""
    raw = IMPORTERS[config.source.kind](config.source)
    check_logs(raw.logs)
    protocol = config.split or (GivenSplitConfig() if raw.has_given_split else RandomSplitConfig())
    columns = raw.logs[0].columns
    if isinstance(protocol, GivenSplitConfig) and not raw.has_given_split:
        raise DatasetError(
            f"split.kind=given: {raw.logs[0].file.location.uri} brings no split; name its column in columns.split, use "
            "source.kind=given_files, or choose another protocol"
        )
    by_time = protocol.kind in ("user_time", "global_time") or getattr(protocol, "order", "") == "time"
    if by_time and "timestamp" not in columns:
        mend = "name the column in columns.timestamp, or choose a protocol that needs no times"
        raise DatasetError(f"split.kind={protocol.kind}: the log has no times; {mend}")
    if config.min_rating is not None and "rating" not in columns:
        raise DatasetError(f"min_rating={config.min_rating}: the log has no ratings; name the column in columns.rating")
    twice = sorted(set(raw.vectors) & set(config.features))
    if twice:
        raise DatasetError(
            f"features.{twice[0]}: the source brings this modality already; give one of them another name"
        )
    catalogue = raw.catalogue
    if config.items is not None:
        if catalogue is not None:
            raise DatasetError("items: the source brings a catalogue already (source.metadata); give one of them")
        catalogue = configured_catalogue(config.items)
    configured = [configured_source(name, entry) for name, entry in sorted(config.features.items())]
    configured += [configured_source(name, entry, "user") for name, entry in sorted(config.user_features.items())]
    if USER_FEATURES in {*raw.vectors, *config.features}:
        mend = "give the modality another name"
        raise DatasetError(f"features.{USER_FEATURES}: this is the folder of the users' own features; {mend}")
    return _Inspected(
        raw=raw,
        vectors=(*raw.vectors.values(), *configured),
        catalogue=catalogue,
        edges=tuple(configured_edges(name, entry) for name, entry in sorted(config.relations.items())),
        protocol=protocol,
    )


class _Preparation:
    """The stages, one method each."""

    def __init__(
        self, config: PrepareConfig, inspected: _Inspected, writer: DatasetWriter, staging: Location, report: Report
    ) -> None:
        self.config = config
        self.raw = inspected.raw
        self.vectors = inspected.vectors
        self.catalogue = inspected.catalogue
        self.edges = inspected.edges
        self.protocol = inspected.protocol
        self.writer = writer
        self.staging = staging
        self.report = report
        self.dropped: list[DroppedEntry] = []
        self.notes: list[str] = []

    def run(self) -> DatasetDescription:
        scanned = self._scan()
        catalogue = self._check_descriptions(scanned)
        buckets = self._bucket(scanned)
        core = self._core(scanned, buckets)
        labelled, facts = self._label(scanned, buckets, core)
        self._write_interactions(scanned, labelled)
        self._write_descriptions(scanned, labelled, catalogue)
        self.report("writing dataset.json")
        options = {**self.protocol.to_plain(), "unknown_users": self.config.unknown_users, **facts}
        return self.writer.finish(
            name=self.config.name or self.writer.location.name,
            protocol=ProtocolDescription(kind=options.pop("kind"), seed=self.config.seed, options=options),
            options=_portable(self.config),
            dropped=self.dropped,
            notes=self.notes,
        )

    def _drop(self, what: str, reason: str, count: int) -> None:
        if count:
            self.dropped.append(DroppedEntry(what=what, reason=reason, count=count))

    def _scan(self) -> Scanned:
        self.report(f"reading {len(self.raw.logs)} log file(s)")
        quarantine = self.config.on_bad_row == "quarantine"
        scanned = scan(self.raw.logs, output=self.writer.location, staging=self.staging, quarantine=quarantine)
        for reason, count in scanned.bad_rows.items():
            self._drop("rows", f"{reason} (see quarantine/)", count)
        for path, entry in scanned.quarantine.items():
            self.writer.record(path, entry)
        return scanned

    def _check_descriptions(self, scanned: Scanned) -> ParsedCatalogue | None:
        """Vectors and item tables are checked before the long stages."""
        if self.vectors:
            self.report("checking vectors")
            self.vectors = check_vectors(self.vectors, {"item": scanned.item_ids, "user": scanned.user_ids})
        if self.catalogue is None:
            return None
        self.report("reading the catalogue")
        return parse_catalogue(self.catalogue, scanned.item_ids, staging=self.staging)

    def _bucket(self, scanned: Scanned) -> Buckets:
        config = self.config
        self.report(f"de-duplicating {scanned.rows:,} rows")
        buckets = make_buckets(
            scanned,
            staging=self.staging,
            deduplicate=config.deduplicate,
            min_rating=config.min_rating,
            partition_rows=config.partition_rows,
        )
        counts = dict(zip(BUCKET_COUNTS, (buckets.counts[name] for name in BUCKET_COUNTS), strict=True))
        self._drop("rows", f"the same user and item again, the {config.deduplicate} one stays", counts["repeated"])
        self._drop("rows", f"rating below {config.min_rating}", counts["low_rated"])
        if counts["contradictory"]:
            self.notes.append(
                f"{counts['contradictory']} pairs of user and item had several ratings or weights: the "
                f"{config.deduplicate} one stays"
            )
        if counts["between_splits"] and isinstance(self.protocol, GivenSplitConfig):
            self.notes.append(
                f"{counts['between_splits']} pairs of user and item lay in more than one split: the "
                f"{config.deduplicate} one stays"
            )
        if not counts["rows"]:
            raise DatasetError(f"no row is left after min_rating={config.min_rating}; lower it")
        return buckets

    def _core(self, scanned: Scanned, buckets: Buckets) -> CoreResult:
        least = self.config.core
        self.report("finding the k-core" if least.users > 1 or least.items > 1 else "counting")
        core = find_core(
            buckets,
            staging=self.staging,
            num_items=len(scanned.item_ids),
            least_user_rows=least.users,
            least_item_rows=least.items,
        )
        if not core.rows:
            raise DatasetError(
                f"core.users={least.users}, core.items={least.items}: no row of {buckets.counts['rows']} is "
                "left; lower them"
            )
        self._drop("rows", f"outside the ({least.users}, {least.items})-core", buckets.counts["rows"] - core.rows)
        return core

    def _label(self, scanned: Scanned, buckets: Buckets, core: CoreResult) -> tuple[Labelled, Mapping[str, int]]:
        config = self.config
        self.report(f"splitting {core.rows:,} rows ({self.protocol.kind})")
        held_out_users = isinstance(self.protocol, ColdUsersSplitConfig)
        rule = make_rule(
            self.protocol,
            seed=config.seed,
            buckets=buckets,
            core=core,
            num_ids=len(scanned.user_ids if held_out_users else scanned.item_ids),
        )
        labelled = label_buckets(rule, buckets, core, staging=self.staging, unknown_users=config.unknown_users)
        self._judge_unknown_users(scanned, labelled)
        self._judge_empty_splits(labelled)
        self._drop("users", "no row is left", len(scanned.user_ids) - len(labelled.users))
        self._drop("items", "no row is left", len(scanned.item_ids) - len(labelled.items))
        if labelled.counts["repeats_train"]:
            self.notes.append(
                f"{labelled.counts['repeats_train']} rows of valid and test repeat a user and item of train "
                "(deduplicate=none)"
            )
        return labelled, rule.facts

    def _judge_unknown_users(self, scanned: Scanned, labelled: Labelled) -> None:
        users, rows = labelled.counts["unknown_users"], labelled.counts["unknown_rows"]
        if not users:
            return
        if self.config.unknown_users == "refuse":
            example = scanned.user_ids[labelled.unknown_example].as_py()
            raise DatasetError(
                f"{users} users, such as {example!r}, are in valid or test but not in train ({rows} rows); set "
                "unknown_users=drop to leave their rows out, or unknown_users=keep"
            )
        if self.config.unknown_users == "drop":
            self._drop("rows", "valid or test row of a user who is not in train", rows)
        else:
            self.notes.append(f"{users} users with {rows} rows are in valid or test but not in train")

    def _judge_empty_splits(self, labelled: Labelled) -> None:
        for split in SPLITS:
            if labelled.counts[split]:
                continue
            may_lack = split == "valid" and isinstance(self.protocol, GivenSplitConfig)
            if split == "train" or not (may_lack or self.config.allow_empty_splits):
                mend = "" if split == "train" else ", or set allow_empty_splits=true"
                raise DatasetError(
                    f"split.kind={self.protocol.kind} leaves {split} without rows (rows: "
                    f"{ {name: labelled.counts[name] for name in SPLITS} }); change the protocol or its shares{mend}"
                )
            self.notes.append(f"{split} is empty" + (": the given split has none" if may_lack else ""))

    def _write_interactions(self, scanned: Scanned, labelled: Labelled) -> None:
        self.report("writing interactions")
        written = write_splits(
            labelled,
            staging=self.staging,
            output=self.writer.location,
            seed=self.config.seed,
            part_rows=self.config.part_rows,
            user_places=len(scanned.user_ids),
            item_places=len(scanned.item_ids),
            names=scanned.columns,
        )
        for path, entry in written.items():
            self.writer.record(path, entry)
        for split in SPLITS:
            self.writer.describe_split(split, labelled.counts[split], scanned.columns)
        self.writer.write_users(scanned.user_ids.take(labelled.users))

    def _write_descriptions(self, scanned: Scanned, labelled: Labelled, catalogue: ParsedCatalogue | None) -> None:
        item_ids, user_ids = scanned.item_ids.take(labelled.items), scanned.user_ids.take(labelled.users)
        extra: dict[str, Any] = {}
        if catalogue is not None:
            self.report("writing the catalogue")
            final_index = np.full(len(scanned.item_ids), -1, np.int32)
            final_index[labelled.items] = np.arange(len(labelled.items), dtype=np.int32)
            extra, dropped = write_catalogue(catalogue, final_index, staging=self.staging, writer=self.writer)
            self.dropped += dropped
        self.writer.write_items(item_ids, extra)
        for relation in self.edges:
            self.report(f"writing the edges of {relation.name}")
            self.dropped += write_edges(relation, item_ids if relation.between == "items" else user_ids, self.writer)
        for source in self.vectors:
            self.report(f"writing vectors of {source.modality}")
            self.dropped += write_vectors(source, item_ids if source.side == "item" else user_ids, self.writer)
        for name, folder in sorted(self.config.media.items()):
            write_media_folder(name, folder, item_ids, self.writer)


def _portable(config: PrepareConfig) -> dict[str, Any]:
    """The options that shaped the data, with the last part of every path: the same on every machine."""
    plain = {key: value for key, value in config.to_plain().items() if key not in NOT_PART_OF_THE_DATA}
    shortened: dict[str, Any] = _with_short_paths(plain, False)
    return shortened


def _with_short_paths(value: Any, is_path: bool) -> Any:
    if isinstance(value, dict):
        return {key: _with_short_paths(entry, key in PATH_KEYS) for key, entry in value.items()}
    if isinstance(value, list):
        return [_with_short_paths(entry, is_path) for entry in value]
    return value.rstrip("/").rpartition("/")[2] if is_path and isinstance(value, str) else value
