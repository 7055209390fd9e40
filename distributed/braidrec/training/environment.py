"""Environment variables of a process that trains: threads and memory allocation. They must be set before it starts."""

import os
import sys
from collections.abc import Mapping

import torch

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


def training_environment(threads: int, present: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables for a process that computes with `threads` threads.

    By default glibc maps every large tensor anew, has it zeroed by the kernel and unmaps it at once. Keeping freed
    memory in the heap, in huge pages, doubled the throughput of sampled training where it was measured. A setting that
    the user made wins.
    """
    wanted = {"OMP_NUM_THREADS": str(threads), MARK: "1"}
    if "GLIBC_TUNABLES" not in present and "LD_PRELOAD" not in present:
        wanted["GLIBC_TUNABLES"] = _MALLOC
    return wanted


def restart_with_training_environment(threads: int | None) -> None:
    """Start this Python program again, in the same process, unless it has the environment already."""
    if MARK in os.environ:
        return
    count = threads or len(os.sched_getaffinity(0))
    environment = {**os.environ, **training_environment(count)}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def use_threads(threads: int) -> None:
    """Give torch's and DGL's kernels `threads` threads in this process."""
    from braidrec.graph.dgl_import import dgl

    torch.set_num_threads(threads)
    dgl.utils.set_num_threads(threads)
