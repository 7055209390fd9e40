"""Runs the loop on Ray Train workers, from the driver."""

import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from braidrec.config.load import ConfigError
from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.display.quiet import quiet_ray
from braidrec.errors import EndedEarly, RunError
from braidrec.training.environment import training_environment
from braidrec.training.events import Event
from braidrec.training.ray_start import start_ray
from braidrec.training.result import LoopResult

SECONDS_TO_SAVE = 30.0
"""Of a run that was told to end, to save where it is; whoever told it may have less patience."""
POLL_SECONDS = 0.5
SECONDS_TO_REFUSE_TOGETHER = 5.0
"""After one rank refused to go on, how long the others get to do so too before they are ended."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a worker gets."""

    cpus: float
    threads: int


def run_on_ray(
    config: RunConfig,
    folder: DatasetFolder,
    run_folder: Location,
    handle: Callable[[Event], None],
    stopped: Callable[[], bool] = lambda: False,
) -> LoopResult:
    """Train on `config.workers.num` Ray Train workers; survives the death of workers and, with `workers.least`, the
    loss of nodes without which not all of them fit any more.

    Args:
        run_folder: of the run, reachable from every node.
        handle: receives every event of rank 0, on a thread of this process.
        stopped: called when a signal ends the run, while the workers save where they are; returns whether to wait for
            that.
    Raises:
        RunError: the run refused to go on, or workers died more often than `workers.max_failures`.
    """
    start_ray(config.workers.num, config.workers.allocator)
    import ray

    from braidrec.training.mailbox import Mailbox

    _refuse_local_storage_on_several_nodes(run_folder)
    mailbox = Mailbox.options(scheduling_strategy=_on_this_node()).remote()  # type: ignore[attr-defined]
    trainer = _trainer(config, folder, run_folder, mailbox)
    listener = MailboxListener(mailbox, handle, trainer.abort, trainer.controlled_by)
    try:
        with listener:
            try:
                failure = _fit(trainer)
            except KeyboardInterrupt:
                mailbox.tell_to_go.remote()
                if stopped():
                    listener.left.wait(SECONDS_TO_SAVE)
                raise
    except BaseException:
        trainer.abort()
        raise
    finally:
        ray.kill(mailbox)
    if listener.refused is not None:
        raise RunError(listener.refused) from failure
    if failure is not None:
        raise RunError(_reason(failure, config.workers.max_failures)) from failure
    if listener.result is None:
        raise RunError("the workers ended without a result; their logs are in Ray's session folder")
    return listener.result


def placement(config: RunConfig, node_cpus: Sequence[float]) -> Placement:
    """CPUs to reserve and threads to use for each worker.

    One CPU, on the node that has most, is left to Ray Data, whose tasks would otherwise wait for ever. Of the others
    each worker gets as many as all can have at once (a fraction on small machines), no worker being on two nodes.
    Threads are a worker's share of its node's cores, for reserved CPUs are only a bookkeeping figure. With
    `workers.least` so many have to fit now; the others come when there is room for them.

    Args:
        node_cpus: what Ray counts on each node.
    Raises:
        ConfigError: more CPUs are asked for than there are.
    """
    workers = config.workers
    free = sorted(node_cpus)
    free[-1] -= 1
    most = most_cpus_each(free, workers.num)
    if most <= 0:
        raise ConfigError(
            f"the Ray cluster has {sum(node_cpus):g} CPU, and Ray Data needs one beside the workers: start it with "
            "more (`ray start --num-cpus 2`; the figure is only for bookkeeping, so it may exceed the cores)"
        )
    needed = workers.least or workers.num
    most_needed = most_cpus_each(free, needed)
    if workers.cpus is not None and workers.cpus > most_needed:
        key = "workers.num" if workers.least is None else "workers.least"
        raise ConfigError(
            f"workers.cpus={workers.cpus:g} × {key}={needed} do not fit the cluster's nodes of "
            f"{', '.join(f'{cpus:g}' for cpus in sorted(node_cpus))} CPUs without the one that Ray Data needs: use "
            f"workers.cpus={hundredths(most_needed):g} or fewer workers"
        )
    cpus = workers.cpus or max(0.01, hundredths(most))
    if cpus > 1:
        cpus = float(int(cpus))
    reserved = None if workers.cpus is None else max(1, int(workers.cpus))
    return Placement(cpus=cpus, threads=workers.threads or reserved or threads_each(node_cpus, workers.num))


def most_cpus_each(free: Sequence[float], workers: int, places: Sequence[int] | None = None) -> float:
    """The largest share of which the nodes can hold `workers`: that of some node among some number of them.

    Args:
        free: CPUs of each node.
        places: how many workers each can hold, however small; None: any number.
    """
    room = places or [workers] * len(free)
    nodes = [(cpus, most) for cpus, most in zip(free, room, strict=True) if cpus > 0]
    shares = sorted((cpus / count for cpus, _ in nodes for count in range(1, workers + 1)), reverse=True)
    fits = (share for share in shares if sum(min(int(cpus / share + 1e-9), most) for cpus, most in nodes) >= workers)
    return next(fits, 0.0)


def threads_each(node_cpus: Sequence[float], processes: int) -> int:
    """Of the cores of a node its share for each of so many processes, which are spread evenly; 1 at least.

    On one machine the cores are counted, for its logical CPUs may be more; of several Ray's figure has to do. A node
    without a CPU, such as a head that is to hold no work, gets no process.
    """
    nodes = [cpus for cpus in node_cpus if cpus > 0]
    cores = len(os.sched_getaffinity(0)) if len(node_cpus) == 1 else sum(nodes) / len(nodes)
    return max(1, int(cores) // -(-processes // len(nodes)))


def hundredths(cpus: float) -> float:
    """Rounded down, so that shares never add up to more than the whole."""
    return math.floor(cpus * 100) / 100


class MailboxListener:
    """Hands on what it finds in the mailbox, on a thread, until it is closed and the mailbox is empty.

    Args:
        mailbox: the actor.
        handle: receives the events.
        abort: ends the training. Called if `handle` fails, and if a rank refused to go on and the others did not
            follow: they wait for it in a collective.
        controlled_by: told who is in control of the workers.
    """

    def __init__(
        self,
        mailbox: Any,
        handle: Callable[[Event], None],
        abort: Callable[[], None],
        controlled_by: Callable[[Any], None] = lambda controller: None,
    ) -> None:
        self._mailbox, self._handle, self._abort, self._controlled_by = mailbox, handle, abort, controlled_by
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="mailbox", daemon=True)
        self.result: LoopResult | None = None
        self.refused: str | None = None
        self.left = threading.Event()
        self._refused_at = math.inf
        self._error: BaseException | None = None

    def __enter__(self) -> "MailboxListener":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._closing.set()
        if kind is not None:  # a signal: nobody waits for what is still in the mailbox
            return
        self._thread.join()
        if isinstance(self._error, EndedEarly):
            raise self._error
        if self._error is not None:
            raise RunError(f"a listener of the run failed: {self._error}") from self._error

    def _listen(self) -> None:
        try:
            self._take_all()
        except BaseException as error:  # handed to the main thread by __exit__
            self._error = error
            self.left.set()  # nobody would hear of it
            self._abort()

    def _take_all(self) -> None:
        import ray

        handled = 0
        while True:
            closing = self._closing.is_set()
            messages = ray.get(self._mailbox.take.remote(handled, 0.0 if closing else POLL_SECONDS))
            if closing and not messages:
                return
            for message in messages:
                self._sort(message)
            handled += len(messages)
            if time.monotonic() > self._refused_at + SECONDS_TO_REFUSE_TOGETHER:
                self._refused_at = math.inf
                self._abort()

    def _sort(self, message: Any) -> None:
        from braidrec.training.mailbox import Controlled, Left, Refused

        if isinstance(message, LoopResult):
            self.result = message
        elif isinstance(message, Refused):
            if self.refused is None:
                self.refused, self._refused_at = message.reason, time.monotonic()
        elif isinstance(message, Controlled):
            self._controlled_by(message.controller)
        elif isinstance(message, Left):
            self.left.set()
        else:
            self._handle(message)


def _trainer(config: RunConfig, folder: DatasetFolder, run_folder: Location, mailbox: Any) -> Any:
    import ray
    from ray.train import FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig

    from braidrec.training.ray_backend import WarnedTorchConfig
    from braidrec.training.ray_entry import train_worker
    from braidrec.training.ray_shards import Shards
    from braidrec.training.ray_trainer import StoppableTrainer

    nodes = [node for node in ray.nodes() if node["Alive"]]
    place = placement(config, [node["Resources"].get("CPU", 0.0) for node in nodes])
    streams, shards = config.training.order == "permutation", Shards(config, folder)
    workers = config.workers
    return StoppableTrainer(
        train_worker,
        train_loop_config={
            "config": config.to_plain(),
            "run_folder": run_folder.uri,
            "mailbox": mailbox,
            "threads": place.threads,
            "streams": streams,
            "name_controller": threading.current_thread() is not threading.main_thread(),
        },
        scaling_config=ScalingConfig(
            num_workers=workers.num if workers.least is None else (workers.least, workers.num),
            use_gpu=workers.gpu,
            resources_per_worker={"CPU": place.cpus, **({"GPU": 1} if workers.gpu else {})},
        ),
        # A name of its own for every start: the run's own checkpoints decide where it continues, never Ray's.
        run_config=RayRunConfig(
            name=f"start-{secrets.token_hex(4)}",
            storage_path=run_folder.child("ray").uri,
            failure_config=FailureConfig(max_failures=config.workers.max_failures),
            worker_runtime_env={"env_vars": quiet_ray().worker_environment | _environment(config, place)},
        ),
        torch_config=WarnedTorchConfig(
            backend=None if config.workers.backend == "auto" else config.workers.backend,
            timeout_s=config.workers.timeout_seconds,
        ),
        datasets={"train": shards.whole} if streams else {},
        dataset_config=shards,
    )


def _environment(config: RunConfig, place: Placement) -> dict[str, str]:
    return training_environment(place.threads, allocator=config.workers.allocator)


def _on_this_node() -> Any:
    """Where the driver is: whoever takes another node away takes no message with it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=False)


def _fit(trainer: Any) -> Exception | None:
    """Run the training; what ended it early, if anything did."""
    from ray.exceptions import RayActorError
    from ray.train import TrainingFailedError

    try:
        trainer.fit()
    except (TrainingFailedError, RayActorError) as error:
        failure: Exception = error
        return failure
    return None


def _reason(failure: Exception, max_failures: int) -> str:
    """What ended the training: dead workers, or else the last line of each worker's error.

    When a worker dies, the others fail too, for they cannot reach it any more.
    """
    from ray.exceptions import OutOfMemoryError, RayActorError
    from ray.train import WorkerGroupError

    if isinstance(failure, OutOfMemoryError):
        return _OUT_OF_MEMORY
    if not isinstance(failure, WorkerGroupError):
        return _last_line(str(failure))
    errors = failure.worker_failures
    # Ray wraps the death of a process in an error of its own, which has no public name.
    causes = {rank: getattr(error, "health_check_failure", error) for rank, error in errors.items()}
    if any(isinstance(cause, OutOfMemoryError) for cause in causes.values()):
        return _OUT_OF_MEMORY
    dead = sorted(rank for rank, cause in causes.items() if isinstance(cause, RayActorError))
    if not dead:
        return "; ".join(sorted({_last_line(str(error)) for error in errors.values()}))
    return (
        f"the process of worker {', '.join(map(str, dead))} died (killed, perhaps for want of memory, or crashed) and "
        f"workers.max_failures={max_failures} is used up; --resume continues from the last checkpoint"
    )


_OUT_OF_MEMORY = (
    "Ray ended a worker because its node's memory was full: use a smaller training.batch_size or model.dim, fewer "
    "workers a node, or end what else runs there; --resume continues from the last checkpoint"
)


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
