"""Seconds by phase, peak memory, and the environment of a process that trains."""

import os
import subprocess
import sys
import time

import pytest
import torch

from braidrec.training.environment import (
    MARK,
    allocation_environment,
    allocator_of,
    give_memory_back,
    training_environment,
    use_threads,
)
from braidrec.training.timing import PhaseTimer, peak_memory_mb


def test_phases_add_up_and_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.5, 10.0, 10.25, 20.0, 22.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    timer = PhaseTimer(torch.device("cpu"))
    with timer.phase("data"):
        pass
    with timer.phase("optimizer"):
        pass
    with pytest.raises(KeyError), timer.phase("data"):
        raise KeyError
    assert timer.take() == {"data": 3.5, "optimizer": 0.25}
    assert timer.take() == {}


def test_peak_memory_never_falls() -> None:
    before = peak_memory_mb(torch.device("cpu"))
    assert set(before) == {"memory/peak_mb"}
    block = torch.ones(8 << 20)
    after = peak_memory_mb(torch.device("cpu"))
    assert after["memory/peak_mb"] >= before["memory/peak_mb"] > 50
    del block


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="this system does not forget peaks")
def test_the_next_run_of_a_process_is_not_told_the_peak_of_the_one_before() -> None:
    """In a process of its own: how much memory is given back at once depends on what was allocated before."""
    code = (
        "import mmap, torch\n"
        "from braidrec.training.timing import forget_peaks, peak_memory_mb\n"
        "peak = lambda: peak_memory_mb(torch.device('cpu'))['memory/peak_mb']\n"
        "before = peak()\n"
        "block = mmap.mmap(-1, 256 << 20); block.write(b'x' * (256 << 20)); block.close()\n"
        "high = peak()\n"
        "forget_peaks(torch.device('cpu'))\n"
        "print(before, high, peak())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, high, after = map(float, done.stdout.split())
    assert high > before + 250 and after < high - 250


def test_memory_stays_in_the_heap_unless_the_user_says_otherwise() -> None:
    wanted = training_environment(3, {})
    assert wanted["OMP_NUM_THREADS"] == "3"
    assert wanted[MARK] == "1"
    tunables = dict(entry.rsplit("=", 1) for entry in wanted["GLIBC_TUNABLES"].split(":"))
    assert tunables["glibc.malloc.hugetlb"] == "1"
    assert int(tunables["glibc.malloc.mmap_threshold"]) == 8 * 2**30
    for present in ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, {"LD_PRELOAD": "/usr/lib/libtcmalloc.so"}):
        assert "GLIBC_TUNABLES" not in training_environment(1, present)
    # A driver that was started again with them hands them on to processes on other machines.
    assert allocation_environment("tuned", wanted) == {"GLIBC_TUNABLES": wanted["GLIBC_TUNABLES"]}


def test_memory_is_allocated_as_the_machine_does_where_the_configuration_says_so() -> None:
    assert allocation_environment("system", {}) == {}
    assert set(training_environment(2, {}, allocator="system")) == {"OMP_NUM_THREADS", MARK}
    assert allocator_of({"workers": {"allocator": "system"}}) == "system"
    for silent in ({}, {"workers": {"num": 1}}, {"workers": None}, {"workers": {"allocator": None}}):
        assert allocator_of(silent) == "tuned"


_SHOW = """
import ctypes, resource, sys
import numpy as np
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.zeros(1 << 22)[:] = 1.0
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_used_again_without_the_kernel() -> None:
    """Twenty arrays of 32 MiB one after the other, in processes of either kind: page faults of the program."""
    faults = {}
    for allocator in ("tuned", "system"):
        environment = {
            name: value for name, value in os.environ.items() if name not in ("GLIBC_TUNABLES", "LD_PRELOAD")
        }
        environment |= training_environment(1, {}, allocator=allocator)
        done = subprocess.run(
            [sys.executable, "-c", _SHOW], env=environment, capture_output=True, text=True, check=True
        )
        faults[allocator] = int(done.stdout)
    assert faults["tuned"] * 4 < faults["system"]


def test_memory_is_given_back() -> None:
    code = """
import psutil
from braidrec.training.environment import give_memory_back
blocks = [bytearray(1 << 20) for _ in range(300)]
del blocks
held = psutil.Process().memory_info().rss
give_memory_back()
print(held - psutil.Process().memory_info().rss)
"""
    environment = os.environ | training_environment(1, {}) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 200 << 20
    give_memory_back()  # harmless anywhere


def test_threads_of_torch_and_dgl() -> None:
    from braidrec.graph.dgl_import import dgl

    try:
        use_threads(2)
        assert torch.get_num_threads() == dgl.utils.get_num_threads() == 2
    finally:
        use_threads(1)
