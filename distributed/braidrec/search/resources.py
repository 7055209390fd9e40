"""How many trials run at a time, and what each gets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from braidrec.config.load import ConfigError
from braidrec.config.run import RunConfig, WorkersConfig
from braidrec.training.ray_runner import hundredths, most_cpus_each, threads_each

CONTROLLER_CPUS = 0.01
"""Of a trial that trains on workers of its own: its process only waits for them."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a trial gets.

    Attributes:
        concurrency: trials at a time.
        resources: of the process of a trial, for Ray.
        workers: of its training.
    """

    concurrency: int
    resources: dict[str, float]
    workers: WorkersConfig


def cpus_to_declare(config: RunConfig, concurrency: int | None) -> int:
    """Logical CPUs that a Ray on this machine needs for so many trials at a time."""
    workers = config.workers
    wanted = concurrency or 1
    if workers.num <= 1:
        return math.ceil(wanted * (workers.cpus or 1))
    return math.ceil(wanted * workers.num * (workers.cpus or 0.5)) + 1


def share(config: RunConfig, concurrency: int | None, nodes: Sequence[Mapping[str, float]]) -> Share:
    """Divide a cluster among trials.

    A trial of one worker trains in its own process, with one CPU (`workers.cpus`) and as many threads as its share of
    the cores. One of several workers starts them from there by Ray Train; one CPU of the cluster is left to Ray Data,
    on the node that has most. No process is on two nodes.

    Args:
        config: of any trial.
        concurrency: trials at a time; None: as many as there is room for.
        nodes: what Ray counts on each, as {"CPU": 4.0, "GPU": 1.0}.
    Raises:
        ConfigError: the cluster is too small for one trial, or for as many as are wanted.
    """
    workers = config.workers
    count = max(1, workers.num)
    cpus, gpus = [node.get("CPU", 0.0) for node in nodes], [node.get("GPU", 0.0) for node in nodes]
    free = list(cpus)
    if count > 1:
        free[free.index(max(free))] -= 1
    gpu_room = [math.floor(own) for own in gpus]
    places = gpu_room if workers.gpu else None
    each = workers.cpus or (1.0 if count == 1 else min(1.0, most_cpus_each(free, count, places)))
    room = [math.floor(own / each + 1e-9) if each > 0 else 0 for own in free]
    possible = sum(min(pair) for pair in zip(room, places or room, strict=True)) // count
    if possible < 1:
        raise ConfigError(_too_small(workers, count, each, cpus, gpus))
    if concurrency is not None and workers.gpu and concurrency > sum(gpu_room) // count:
        raise ConfigError(f"concurrency={concurrency}: the cluster's {sum(gpus):g} GPUs allow {sum(gpu_room) // count}")
    at_once = concurrency or possible
    # What the waiting processes hold comes off the workers' share: Ray Data needs its CPU whole.
    held = CONTROLLER_CPUS * at_once if count > 1 else 0.0
    each = min(each, hundredths(most_cpus_each([own - held for own in free], at_once * count, places)))
    if each <= 0:
        raise ConfigError(f"concurrency={at_once}: so many shares of {sum(free):g} CPUs are less than a hundredth")
    # Where only some nodes have a GPU, the others hold no process.
    used = [own if gpu else 0.0 for own, gpu in zip(cpus, gpu_room, strict=True)] if workers.gpu else cpus
    threads = workers.threads or min(threads_each(used, at_once * count), 64)
    return Share(
        concurrency=at_once,
        resources=_resources(workers, count, each),
        workers=workers.model_copy(
            update={"num": 0 if count == 1 else count, "cpus": each if count > 1 else None, "threads": threads}
        ),
    )


def _too_small(workers: WorkersConfig, count: int, each: float, cpus: Sequence[float], gpus: Sequence[float]) -> str:
    def listed(figures: Sequence[float]) -> str:
        return f"{sum(figures):g}" + (f" ({', '.join(f'{own:g}' for own in figures)})" if len(figures) > 1 else "")

    return (
        f"a trial needs {count} × {each:g} CPUs{f' and {count} GPUs' if workers.gpu else ''}, the cluster has "
        f"{listed(cpus)} CPUs{f' and {listed(gpus)} GPUs' if workers.gpu else ''}: lower workers.num or workers.cpus"
    )


def _resources(workers: WorkersConfig, count: int, cpus: float) -> dict[str, Any]:
    if count > 1:
        return {"CPU": CONTROLLER_CPUS}
    return {"CPU": cpus, **({"GPU": 1} if workers.gpu else {})}
