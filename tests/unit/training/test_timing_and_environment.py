"""Seconds by phase, peak memory, and the environment of a process that trains."""

import time

import pytest
import torch

from braidrec.training.environment import MARK, training_environment, use_threads
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


def test_memory_stays_in_the_heap_unless_the_user_says_otherwise() -> None:
    wanted = training_environment(3, {})
    assert wanted["OMP_NUM_THREADS"] == "3"
    assert wanted[MARK] == "1"
    tunables = dict(entry.rsplit("=", 1) for entry in wanted["GLIBC_TUNABLES"].split(":"))
    assert tunables["glibc.malloc.hugetlb"] == "1"
    assert int(tunables["glibc.malloc.mmap_threshold"]) == 8 * 2**30
    for present in ({"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"}, {"LD_PRELOAD": "/usr/lib/libtcmalloc.so"}):
        assert "GLIBC_TUNABLES" not in training_environment(1, present)


def test_threads_of_torch_and_dgl() -> None:
    from braidrec.graph.dgl_import import dgl

    try:
        use_threads(2)
        assert torch.get_num_threads() == dgl.utils.get_num_threads() == 2
    finally:
        use_threads(1)
