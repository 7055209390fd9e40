"""Keeping the computing threads of a Ray worker on cores of their own."""

import os
import threading

import torch

_FORKS_THREADS = 1 << 20
"""Elements of a tensor that torch adds up with all its threads."""


def pin_computing_threads(threads: int, *, local_rank: int, local_workers: int) -> dict[int, int]:
    """Give the calling thread and the OpenMP threads that compute for it a core each.

    Ray's own processes wake a thousand times a second, each for a moment. Where every core computes, the scheduler
    answers by moving computing threads, two of which then share a core while a third of a step is lost to the wait for
    the slower one. A thread that has its core loses only the moments. (Measured with two cores, exact LightGCN on
    Gowalla: an epoch on Ray took 4 instead of 10 % longer than without Ray.)

    Nothing is pinned where the node's workers leave a core free, or want more than there are: there the scheduler does
    better. Call it first in the thread that trains.

    Args:
        threads: of this worker.
        local_rank, local_workers: of this worker among those of its node.
    Returns:
        The core of each pinned thread by the thread's id; empty if none is.
    """
    if not hasattr(os, "sched_setaffinity") or not os.path.isdir("/proc/self/task"):
        return {}  # not Linux
    cores = sorted(os.sched_getaffinity(0))
    if threads * local_workers != len(cores):
        return {}
    before = _thread_ids()
    torch.ones(_FORKS_THREADS).add_(1.0)
    team = [threading.get_native_id(), *sorted(_thread_ids() - before)]
    if len(team) != threads:
        return {}  # they were there already, or others began meanwhile: no telling which they are
    pinned = dict(zip(team, cores[local_rank * threads :], strict=False))
    for thread, core in pinned.items():
        os.sched_setaffinity(thread, {core})
    return pinned


def _thread_ids() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/task")}
