"""How many trials run at a time, and what each gets."""

import math
import os
from dataclasses import dataclass
from typing import Any

from braidrec.config.load import ConfigError
from braidrec.config.run import RunConfig, WorkersConfig

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


def share(config: RunConfig, concurrency: int | None, cluster: dict[str, float], num_nodes: int) -> Share:
    """Divide a cluster among trials.

    A trial of one worker trains in its own process, with one CPU (`workers.cpus`) and as many threads as its share of
    the cores. One of several workers starts them from there by Ray Train; one CPU of the cluster is left to Ray Data.

    Raises:
        ConfigError: the cluster is too small for one trial, or for as many as are wanted.
    """
    workers = config.workers
    count = max(1, workers.num)
    cpus, gpus = cluster.get("CPU", 1.0), cluster.get("GPU", 0.0)
    free = cpus if count == 1 else cpus - 1
    each = workers.cpus or (1.0 if count == 1 else min(1.0, free / count))
    possible = [math.floor(free / (each * count) + 1e-9)] + ([math.floor(gpus / count)] if workers.gpu else [])
    if min(possible) < 1:
        raise ConfigError(
            f"a trial needs {count} × {each:g} CPUs{f' and {count} GPUs' if workers.gpu else ''}, the cluster has "
            f"{cpus:g} CPUs{f' and {gpus:g} GPUs' if workers.gpu else ''}: lower workers.num or workers.cpus"
        )
    if concurrency is not None and workers.gpu and concurrency > possible[-1]:
        raise ConfigError(f"concurrency={concurrency}: the cluster's {gpus:g} GPUs allow {possible[-1]}")
    at_once = concurrency or min(possible)
    # What the waiting processes hold comes off the workers' share: Ray Data needs its CPU whole.
    held = CONTROLLER_CPUS * at_once if count > 1 else 0.0
    each = min(each, _hundredths((free - held) / (at_once * count)))
    cores = len(os.sched_getaffinity(0)) if num_nodes == 1 else int(cpus)
    threads = workers.threads or max(1, min(cores // (at_once * count), 64))
    return Share(
        concurrency=at_once,
        resources=_resources(workers, count, each),
        workers=workers.model_copy(
            update={"num": 0 if count == 1 else count, "cpus": each if count > 1 else None, "threads": threads}
        ),
    )


def _resources(workers: WorkersConfig, count: int, cpus: float) -> dict[str, Any]:
    if count > 1:
        return {"CPU": CONTROLLER_CPUS}
    return {"CPU": cpus, **({"GPU": 1} if workers.gpu else {})}


def _hundredths(cpus: float) -> float:
    """Rounded down, so that shares never add up to more than the whole."""
    return math.floor(cpus * 100) / 100
