"""Runs the loop on Ray Train workers, from the driver."""

import os
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import braidrec
from braidrec.config.load import ConfigError
from braidrec.config.run import RunConfig
from braidrec.data.delivery import PADDING_USER, ShardPlan
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.display.quiet import quiet_ray
from braidrec.errors import RunError
from braidrec.training.build import loss_columns
from braidrec.training.environment import training_environment
from braidrec.training.events import Event
from braidrec.training.result import LoopResult

POLL_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a worker gets."""

    cpus: float
    threads: int


def run_on_ray(
    config: RunConfig, folder: DatasetFolder, run_folder: Location, handle: Callable[[Event], None]
) -> LoopResult:
    """Train on `config.workers.num` Ray Train workers; survives the death of workers.

    Args:
        run_folder: of the run, reachable from every node.
        handle: receives every event of rank 0, on a thread of this process.
    Raises:
        RunError: the run refused to go on, or workers died more often than `workers.max_failures`.
    """
    start_ray(config.workers.num)
    import ray

    from braidrec.training.mailbox import Mailbox

    _refuse_local_storage_on_several_nodes(run_folder)
    mailbox = Mailbox.remote()  # type: ignore[attr-defined]
    listener = MailboxListener(mailbox, handle)
    try:
        with listener:
            trainer = _trainer(config, folder, run_folder, mailbox)
            _fit(trainer, listener)
    finally:
        ray.kill(mailbox)
    if listener.refused is not None:
        raise RunError(listener.refused)
    if listener.result is None:
        raise RunError("the workers ended without a result; their logs are in Ray's session folder")
    return listener.result


def start_ray(num_workers: int) -> None:
    """Connect to the cluster that RAY_ADDRESS names (as a submitted job does), or start Ray here.

    A Ray started here gets at least one logical CPU more than there are workers, so that Ray Data's tasks never wait
    for a CPU that training holds. On a cluster the library itself travels with the job.
    """
    quiet = quiet_ray()
    import ray

    if ray.is_initialized():
        return
    package = str(Path(braidrec.__file__).parent)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(runtime_env={"py_modules": [package]}, **quiet.init_arguments)
    else:
        cpus = max(len(os.sched_getaffinity(0)), num_workers + 1)
        ray.init(address="local", num_cpus=cpus, **quiet.init_arguments)


def placement(config: RunConfig, cluster_cpus: float, num_nodes: int) -> Placement:
    """CPUs to reserve and threads to use for each worker.

    All but one CPU of the cluster are shared by the workers (a fraction each on small machines), the last is left to
    Ray Data. Threads are a worker's share of its node's cores, for reserved CPUs are only a bookkeeping figure.

    Raises:
        ConfigError: more CPUs are asked for than there are.
    """
    workers = config.workers
    if workers.cpus is not None and workers.cpus * workers.num > cluster_cpus:
        raise ConfigError(
            f"workers.cpus={workers.cpus} × workers.num={workers.num} is more than the cluster's {cluster_cpus:g} "
            f"CPUs: use workers.cpus={cluster_cpus / workers.num:.2g} or fewer workers"
        )
    cpus = workers.cpus or max(0.01, round((cluster_cpus - 1) / workers.num, 2))
    if cpus > 1:
        cpus = float(int(cpus))
    # On one machine the cores are counted: its logical CPUs may be more. Elsewhere Ray's figure has to do.
    cores = len(os.sched_getaffinity(0)) if num_nodes == 1 else cluster_cpus / num_nodes
    share = max(1, int(cores) // -(-workers.num // num_nodes))
    reserved = None if workers.cpus is None else max(1, int(workers.cpus))
    return Placement(cpus=cpus, threads=workers.threads or reserved or share)


class MailboxListener:
    """Polls the mailbox on a thread and hands on what it finds, until it is closed and the mailbox is empty."""

    def __init__(self, mailbox: Any, handle: Callable[[Event], None]) -> None:
        self._mailbox, self._handle = mailbox, handle
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="mailbox", daemon=True)
        self.result: LoopResult | None = None
        self.refused: str | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "MailboxListener":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(timeout=30)
        if self._error is not None:
            raise RunError(f"a listener of the run failed: {self._error}") from self._error

    def _poll(self) -> None:
        try:
            while not self._closing.wait(POLL_SECONDS):
                self._drain()
            self._drain()
        except BaseException as error:  # handed to the main thread by __exit__
            self._error = error

    def _drain(self) -> None:
        import ray

        from braidrec.training.mailbox import Refused

        for message in ray.get(self._mailbox.take.remote()):
            if isinstance(message, LoopResult):
                self.result = message
            elif isinstance(message, Refused):
                self.refused = message.reason
            else:
                self._handle(message)


def train_shards(config: RunConfig, folder: DatasetFolder) -> Any:
    """The train split as a Ray Data set whose rows divide evenly among the workers.

    Ray's equal split would drop what is left over; rows of user −1 fill it up and are taken out on arrival.
    """
    import pyarrow as pa
    import ray.data

    columns = loss_columns(config)
    dataset = folder.ray_dataset("train", columns)
    padding = ShardPlan(total_rows=folder.num_rows("train"), world_size=config.workers.num).padding_rows
    if padding:
        types = {"user": pa.int32(), "item": pa.int32(), "rating": pa.float32(), "weight": pa.float32()}
        fill = {"user": PADDING_USER, "item": 0, "rating": 0.0, "weight": 0.0}
        rows = pa.table({name: pa.array([fill[name]] * padding, types[name]) for name in columns})
        dataset = dataset.union(ray.data.from_arrow(rows))
    return dataset


def _trainer(config: RunConfig, folder: DatasetFolder, run_folder: Location, mailbox: Any) -> Any:
    import ray
    import ray.data
    from ray.train import DataConfig, FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from braidrec.training.ray_entry import train_worker

    nodes = [node for node in ray.nodes() if node["Alive"]]
    place = placement(config, ray.cluster_resources().get("CPU", 1.0), len(nodes))
    streams = config.training.order == "permutation"
    ordered = ray.data.ExecutionOptions(preserve_order=True)
    return TorchTrainer(
        train_worker,
        train_loop_config={
            "config": config.to_plain(),
            "run_folder": run_folder.uri,
            "mailbox": mailbox,
            "threads": place.threads,
            "streams": streams,
        },
        scaling_config=ScalingConfig(
            num_workers=config.workers.num,
            use_gpu=config.workers.gpu,
            resources_per_worker={"CPU": place.cpus, **({"GPU": 1} if config.workers.gpu else {})},
        ),
        # A name of its own for every start: the run's own checkpoints decide where it continues, never Ray's.
        run_config=RayRunConfig(
            name=f"start-{secrets.token_hex(4)}",
            storage_path=run_folder.child("ray").uri,
            failure_config=FailureConfig(max_failures=config.workers.max_failures),
            worker_runtime_env={"env_vars": quiet_ray().worker_environment | training_environment(place.threads)},
        ),
        torch_config=TorchConfig(
            backend=None if config.workers.backend == "auto" else config.workers.backend,
            timeout_s=config.workers.timeout_seconds,
        ),
        datasets={"train": train_shards(config, folder)} if streams else {},
        dataset_config=DataConfig(datasets_to_split=["train"], execution_options=ordered, enable_shard_locality=False),
    )


def _fit(trainer: Any, listener: MailboxListener) -> None:
    from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError, WorkerGroupError

    try:
        trainer.fit()
    except WorkerGroupError as error:
        reasons = {_last_line(str(reason)) for reason in error.worker_failures.values()}
        raise RunError("; ".join(sorted(reasons))) from error
    except (ControllerError, TrainingFailedError) as error:
        raise RunError(_last_line(str(error))) from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"


def _refuse_local_storage_on_several_nodes(run_folder: Location) -> None:
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) > 1 and "://" not in run_folder.uri and len({node["NodeManagerHostname"] for node in nodes}) > 1:
        raise ConfigError(
            f"storage: {run_folder.uri} is local to one machine, but the cluster has {len(nodes)} nodes: set "
            "storage to a place that all nodes reach (s3://…, gs://…, or a mounted network folder given as file:///…)"
        )
