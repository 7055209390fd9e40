"""The extraction as Ray Data runs it: read rows → load and prepare → encode in actors → write parts.

Nothing but counts comes back to the driver. How much decoded media waits for the encoder is bounded, so that memory
does not grow with the number of items.
"""

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from braidrec.config.extract import ExtractConfig, ImageLimitsConfig, LimitsConfig
from braidrec.data.errors import DatasetError
from braidrec.data.storage import Location
from braidrec.data.writer import write_table
from braidrec.errors import RunError
from braidrec.features.extract.columns import MEDIA_FIELDS, STATE_SCHEMA, media_columns, media_of, vector_column
from braidrec.features.extract.encoders.contract import Encoder, Medium, Prepared
from braidrec.features.extract.ledger import HASH_BYTES, LEDGER_COLUMNS, Current, hash_of, limits_text
from braidrec.features.extract.manifest import NO_MEDIUM, Manifest, Plan, told_by_manifest
from braidrec.features.extract.media import MediaError, checked_size, read_medium

ROWS_READ = 1024
ROWS_AHEAD = 4
"""Media that each thread of `load_here` prepares before they are taken."""
ROWS_LOADED = {"text": 512, "image": 32, "audio": 16, "video": 2}
"""Items that one task prepares: enough to be worth a task, few enough for all cores to have one."""
CALLS_OF_BATCHES = {"text": 8, "image": 1, "audio": 1, "video": 1}
"""Batches that an actor is given at once. Texts are sorted by length among them, which saves the padding."""
LOADING_TASK = 0.75
"""CPUs of a task that prepares media. Not as many as an actor claims, or Ray would make one of the two."""
SMALL_TASK = 0.25
"""CPUs that a task which mostly waits for a disk is counted as."""
_OF_BAD = ("item", "status", "error")


class Preparer(Protocol):
    """Media of one kind, each as whoever looks at it takes it. Every encoder is one."""

    @property
    def medium(self) -> Medium: ...

    def prepare(self, raw: bytes | str) -> Prepared:
        """As of `Encoder`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the tasks know that read and prepare media; big things by reference."""

    manifest: Manifest
    limits: ImageLimitsConfig
    encoder: Preparer
    """For preparing: without what it learnt, which only actors need."""
    places: Any
    """Reference to `Plan.items`."""
    current: Any
    """Reference to what is done already, `ledger.Current`; None: load everything."""
    prepares: bool = True
    """Whether media are decoded, or only read and hashed."""


@dataclass(frozen=True, kw_only=True)
class Work(Reading):
    """What the tasks of one extraction know."""

    limits: LimitsConfig
    output: Location
    generation: int
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """One item's medium.

    Attributes:
        reason: why it cannot be used; None: it can.
        error: the same in a sentence.
        prepared: what the preparer made of it; None where there is a reason.
    """

    item: int
    reason: str | None
    error: str | None
    prepared: Prepared | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How some rows went."""

    encoded: int
    kept: int
    failed: dict[str, int]
    kept_failed: int
    """Of the rejected, those that an earlier start had rejected."""


def encode_all(work: Work, encoder: Encoder, config: ExtractConfig) -> Iterator[Answer]:
    """Encode whatever is not done; one answer a part, as they come.

    Args:
        encoder: with what it learnt, for the actors.
    Raises:
        DatasetError: a manifest that cannot be read.
        RunError: an encoder that cannot be loaded or run.
    """
    import ray
    from ray.data import ActorPoolStrategy

    medium, workers = encoder.medium, config.workers
    gpus = _gpus(config)
    share = _actor_cpus(ray.cluster_resources().get("CPU", 1), workers.num)
    threads = workers.threads or max(1, (os.cpu_count() or 1) // workers.num)
    dataset = _loaded(work).map_batches(
        EncodingActor,
        fn_constructor_kwargs={
            "encoder": [ray.put(encoder)],
            "dtype": work.dtype,
            "use_gpu": bool(gpus),
            "threads": threads,
        },
        batch_size=encoder.batch * CALLS_OF_BATCHES[medium],
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=workers.num),
        num_cpus=share,
        num_gpus=gpus,
    )
    dataset = dataset.map_batches(
        _WritePart(work), batch_size=config.rows_per_part, batch_format="pyarrow", num_cpus=SMALL_TASK
    )
    for batch in _run(dataset, config.memory_mb):
        for row in batch.to_pylist():
            yield Answer(**{**row, "failed": json.loads(row["failed"])})


def load_some(work: Reading, config: ExtractConfig) -> Iterator[tuple[int, Prepared]]:
    """Item and prepared medium of the work's items, in no particular order; rejected ones are left out."""
    for loaded in load_all(work, config.memory_mb):
        prepared = loaded.prepared
        if prepared is not None:
            yield loaded.item, np.array(prepared) if isinstance(prepared, np.ndarray) else prepared


def load_all(work: Reading, memory_mb: int) -> Iterator[Loaded]:
    """The media of the work's items, rejected ones too, in no particular order, by Ray Data. Arrays stay valid until
    the next is taken.

    Args:
        memory_mb: about what may wait to be taken.
    """
    for batch in _run(_loaded(work), memory_mb):
        bad = batch.filter(pc.is_valid(batch.column("status")))
        for item, reason, error in zip(*(bad.column(name).to_pylist() for name in _OF_BAD), strict=True):
            yield Loaded(item=item, reason=reason, error=error, prepared=None)
        good = batch.filter(pc.is_null(batch.column("status")))
        for item, prepared in zip(good.column("item").to_pylist(), media_of(good), strict=True):
            yield Loaded(item=item, reason=None, error=None, prepared=prepared)


def load_here(work: Reading, items: Sequence[NDArray[np.int32]], threads: int) -> Iterator[Loaded]:
    """The same without Ray, in the manifest's order, by threads of this process: decoders let others work meanwhile.

    Args:
        items: `Plan.items`, in the place of the work's reference to it.
    """
    load = _Load(work)
    with ThreadPoolExecutor(threads, "media") as pool:
        for number, places in enumerate(items):
            for rows in _rows_of(work.manifest, number, places):
                for start in range(0, rows.num_rows, threads * ROWS_AHEAD):
                    yield from pool.map(load.load, *load.columns(rows.slice(start, threads * ROWS_AHEAD)))


def hash_some(work: Reading, config: ExtractConfig) -> Iterator[tuple[int, bytes]]:
    """Item and hash of all media of the work that can be read, in no particular order."""
    for batch in _run(_loaded(replace(work, prepares=False)), config.memory_mb):
        good = batch.filter(pc.is_valid(batch.column("source")))
        yield from zip(good.column("item").to_pylist(), good.column("source").to_pylist(), strict=True)


def _loaded(work: Reading) -> Any:
    import ray.data

    files = [{"file": number} for number in range(len(work.manifest.files))]
    dataset = ray.data.from_items(files, override_num_blocks=len(files))
    return (
        dataset.map_batches(_ReadRows(work), batch_size=1, batch_format="pyarrow", num_cpus=SMALL_TASK)
        # Without it, one task would load all that comes out of one file.
        .repartition(target_num_rows_per_block=ROWS_LOADED[work.encoder.medium])
        .map_batches(_Load(work), batch_size=None, batch_format="pyarrow", num_cpus=LOADING_TASK)
    )


def _run(dataset: Any, memory_mb: int) -> Iterator[Any]:
    from ray.data import ExecutionResources
    from ray.exceptions import RayError

    options = dataset.context.execution_options
    options.resource_limits = ExecutionResources.for_limits(object_store_memory=memory_mb << 20)
    options.preserve_order = False
    try:
        yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except (RayError, DatasetError) as error:
        raise _reason(error) from None


def _reason(error: BaseException) -> Exception:
    """What a task or actor raised, without Ray's traceback."""
    seen: BaseException | None = error
    while seen is not None:
        cause = getattr(seen, "cause", None)
        for candidate in (seen, cause):
            if isinstance(candidate, DatasetError):
                return DatasetError(str(cause or candidate))
        if isinstance(cause, BaseException):
            return RunError(f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}")
        seen = seen.__cause__ or seen.__context__
    return RunError(str(error).strip().splitlines()[-1])


def _gpus(config: ExtractConfig) -> int:
    import ray

    available = int(ray.cluster_resources().get("GPU", 0))
    wanted = config.workers.num
    if config.workers.device == "cpu" or (config.workers.device == "auto" and not available):
        return 0
    if available < wanted:
        raise RunError(f"workers.num={wanted} encoders want a GPU each, Ray has {available}; lower it, or device=cpu")
    return 1


def _actor_cpus(cpus: float, num_actors: int) -> float:
    """At most one, and few enough together that tasks which load media always find a CPU."""
    return float(np.floor(min(1.0, max(0.1, (cpus - 1 - 2 * SMALL_TASK) / num_actors)) * 100) / 100)


def _rows_of(manifest: Manifest, number: int, places: NDArray[np.int32]) -> Iterator[Any]:
    """Item, file, what to read and why not, of the rows of one file that count."""
    for first, table in manifest.batches(number, ROWS_READ):
        items = places[first : first + table.num_rows]
        value, reason = manifest.values(table)
        origin = pa.array(np.full(len(items), number, np.int32))
        rows = pa.table({"item": pa.array(items), "file": origin, "value": value, "reason": reason})
        yield rows.filter(pa.array(items >= 0))


class _ReadRows:
    """Rows of a manifest: item, what to read, and why not."""

    def __init__(self, work: Reading) -> None:
        self.work = work

    def __call__(self, batch: Any) -> Iterator[Any]:
        import ray

        number = batch.column("file")[0].as_py()
        yield from _rows_of(self.work.manifest, number, ray.get(self.work.places)[number])


class _Load:
    """Content, hash and prepared medium of each row that is not done already."""

    def __init__(self, work: Reading) -> None:
        self.work = work

    def __call__(self, table: Any) -> Any:
        import ray

        current = None if self.work.current is None else ray.get(self.work.current)
        rows = zip(*self.columns(table), strict=True)
        found = [self._one(item, file, value, reason, current) for item, file, value, reason in rows]
        sources, statuses, errors, prepared = zip(*found, strict=True) if found else ((), (), (), ())
        state = [
            table.column("item").cast(pa.int32()),
            pa.array(sources, pa.binary(HASH_BYTES)),
            pa.array(statuses, pa.string()),
            pa.array(errors, pa.string()),
        ]
        return pa.table({**dict(zip(STATE_SCHEMA.names, state, strict=True)), **media_columns(prepared)})

    def load(self, item: int, file: int, value: bytes | str | None, reason: str | None) -> Loaded:
        """One row, whether or not it has been done before."""
        _, status, error, prepared = self._one(item, file, value, reason, None)
        return Loaded(item=item, reason=status, error=error, prepared=prepared)

    def columns(self, table: Any) -> list[list[Any]]:
        """What `load` takes, of all rows."""
        return [table.column(name).to_pylist() for name in ("item", "file", "value", "reason")]

    def _one(
        self, item: int, file: int, value: bytes | str | None, reason: str | None, current: Current | None
    ) -> tuple[bytes | None, str | None, str | None, Prepared | None]:
        """Hash, status, error and prepared medium of one row."""
        if reason is not None or value is None:
            return None, reason, told_by_manifest(reason or NO_MEDIUM), None
        source: bytes | None = None
        try:
            content = self._content(file, value)
            source = hash_of(content)
            status = None if current is None else current.status(item, source)
            wanted = status is None and self.work.prepares
            return source, status, None, self.work.encoder.prepare(content) if wanted else None
        except MediaError as refused:
            return source, refused.reason, str(refused), None
        except Exception as failure:  # decoders raise anything on damaged files
            return source, "unreadable", f"{type(failure).__name__}: {failure}", None

    def _content(self, file: int, value: bytes | str) -> bytes | str:
        if self.work.manifest.form == "uri":
            return read_medium(str(value), self.work.manifest.bases[file], self.work.limits.max_bytes)
        return checked_size(value, self.work.limits.max_bytes) if isinstance(value, bytes) else value


class EncodingActor:
    """Holds the encoder and turns prepared media into vectors."""

    def __init__(self, encoder: list[Any], dtype: str, use_gpu: bool, threads: int) -> None:
        import ray
        import torch

        self.encoder: Encoder = ray.get(encoder[0])
        self.dtype = dtype
        self.device = torch.device("cuda" if use_gpu else "cpu")
        self.loaded = False
        torch.set_num_threads(threads)

    def __call__(self, table: Any) -> Any:
        rows = np.flatnonzero(table.column("status").is_null().to_numpy())
        vectors: list[Any] = [None] * table.num_rows
        statuses, errors = (table.column(name).to_pylist() for name in ("status", "error"))
        if len(rows):
            if not self.loaded:  # a second run, for which nothing is left, loads nothing
                self.encoder.load(self.device)
                self.loaded = True
            found = self._encode(media_of(table.select([name for name, _ in MEDIA_FIELDS]).take(pa.array(rows))))
            for row, (vector, reason, error) in zip(rows, found, strict=True):
                vectors[row], statuses[row], errors[row] = vector, reason, error
        return pa.table(
            {
                "item": table.column("item"),
                "source": table.column("source"),
                "status": pa.array(statuses, pa.string()),
                "error": pa.array(errors, pa.string()),
                "vector": vector_column(vectors),
            }
        )

    def _encode(self, media: Sequence[Prepared]) -> list[tuple[Any, str | None, str | None]]:
        try:
            vectors = self.encoder.encode(media)
        except Exception as error:  # libraries raise anything; one bad item must not take its neighbours along
            if len(media) == 1:
                return [(None, "encoder failed", f"{type(error).__name__}: {str(error)[:200]}")]
            return [found for medium in media for found in self._encode([medium])]
        return [self._checked(vector) for vector in vectors]

    def _checked(self, vector: Any) -> tuple[Any, str | None, str | None]:
        with np.errstate(over="ignore"):
            stored = vector.astype(self.dtype).astype(np.float32)
        if not np.isfinite(stored).all():
            return None, "not finite", f"the encoder gave NaN or infinity as {self.dtype}"
        if not stored.any():
            return None, "empty vector", "the encoder knows nothing in this item (a vector of zeros)"
        return stored, None, None


class _WritePart:
    """Write down what is new, a file a call, and answer with counts."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self, table: Any) -> Any:
        status = table.column("status")
        kept = pc.fill_null(pc.starts_with(status, "kept"), False)
        kept_failed = int(pc.sum(pc.fill_null(pc.equal(status, "kept reject"), False)).as_py() or 0)
        new = table.filter(pc.invert(kept))
        if new.num_rows:
            name = f"{self.work.generation:05d}-{secrets.token_hex(8)}.parquet"
            *of_ledger, limits = LEDGER_COLUMNS
            judged = pa.array([limits_text(self.work.limits)] * new.num_rows)
            part = new.rename_columns([*of_ledger, "vector"]).append_column(limits, judged)
            write_table(self.work.output.child(name), part)
        counts = new.column("status").drop_null().value_counts()
        failed = {row["values"].as_py(): row["counts"].as_py() for row in counts}
        if kept_failed:
            failed["rejected before"] = kept_failed
        encoded = new.num_rows - new.column("status").drop_null().length()
        answer = {
            "encoded": [encoded],
            "kept": [table.num_rows - new.num_rows - kept_failed],
            "failed": [json.dumps(failed)],
            "kept_failed": [kept_failed],
        }
        return pa.table(answer)


def plan_reference(plan: Plan) -> Any:
    """`Plan.items` where every task can map it."""
    import ray

    return ray.put(list(plan.items))
