"""Environment variables of a process that trains: threads and memory allocation. They must be set before it starts."""

import ctypes
import os
import sys
from collections.abc import Mapping
from typing import Any

import torch

from braidrec.config.run import WorkersConfig

_KEPT_BYTES = 8 * 2**30
_MALLOC = ":".join(
    [
        "glibc.malloc.hugetlb=1",
        f"glibc.malloc.mmap_threshold={_KEPT_BYTES}",
        f"glibc.malloc.trim_threshold={_KEPT_BYTES}",
        f"glibc.malloc.top_pad={256 * 2**20}",
    ]
)
MARK = "BRAIDREC_ENVIRONMENT"
"""Set in a process whose environment was arranged, so that it is not started a second time."""


def allocation_environment(allocator: str = "tuned", present: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables that decide how a process gets its memory.

    By default glibc maps every large tensor anew, has it zeroed by the kernel and unmaps it at once. Keeping freed
    memory in the heap, in huge pages, doubled the throughput of sampled training where it was measured
    (benchmarks/scale.py). A setting that the user made wins.

    Args:
        allocator: "tuned", or "system" for none.
        present: the environment of this process.
    """
    if allocator == "system" or "LD_PRELOAD" in present:
        return {}
    if present.get("GLIBC_TUNABLES", _MALLOC) != _MALLOC:  # ours are handed on to processes on other machines
        return {}
    return {"GLIBC_TUNABLES": _MALLOC}


def training_environment(
    threads: int, present: Mapping[str, str] = os.environ, *, allocator: str = "tuned"
) -> dict[str, str]:
    """Variables for a process that computes with `threads` threads: `allocation_environment`, and their number."""
    return {"OMP_NUM_THREADS": str(threads), MARK: "1", **allocation_environment(allocator, present)}


def allocator_of(plain: Mapping[str, Any]) -> str:
    """`workers.allocator` of a run that is not validated yet; what is no such key is for validation to refuse."""
    workers = plain.get("workers")
    named = workers.get("allocator") if isinstance(workers, Mapping) else None
    return str(named or WorkersConfig().allocator)


def restart_with_training_environment(threads: int | None, *, allocator: str = "tuned") -> None:
    """Start this Python program again, in the same process, unless it has the environment already."""
    if MARK in os.environ:
        return
    count = threads or len(os.sched_getaffinity(0))
    environment = {**os.environ, **training_environment(count, allocator=allocator)}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def give_memory_back() -> None:
    """Return freed memory to the machine, which the tuned allocation keeps: after work that is done once and took much
    more than what follows will."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def use_threads(threads: int) -> None:
    """Give torch's and DGL's kernels `threads` threads in this process."""
    from braidrec.graph.dgl_import import dgl

    torch.set_num_threads(threads)
    dgl.utils.set_num_threads(threads)
