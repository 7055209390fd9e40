"""Computing threads on cores of their own."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

CORES = sorted(os.sched_getaffinity(0))

_PROGRAM = """
import json, os, sys, threading
import torch
from braidrec.training.pinning import pin_computing_threads

threads, local_rank, local_workers, warm = map(int, sys.argv[1:])
told = {}

def trains():
    torch.set_num_threads(threads)
    if warm:
        torch.ones(1 << 20).add_(1.0)
    pinned = pin_computing_threads(threads, local_rank=local_rank, local_workers=local_workers)
    told["pinned"] = list(pinned.items())
    told["here"] = threading.get_native_id()
    used = {task: ticks(task) for task in os.listdir("/proc/self/task")}
    values = torch.rand(1 << 22)
    for _ in range(60):
        values = values.sin()
    told["busy"] = sorted(int(task) for task in used if ticks(task) > used[task])

def ticks(task):
    fields = open(f"/proc/self/task/{task}/stat").read().rsplit(")", 1)[1].split()
    return int(fields[11])

thread = threading.Thread(target=trains)
thread.start()
thread.join()
told["allowed"] = {task: sorted(os.sched_getaffinity(int(task))) for task in os.listdir("/proc/self/task")}
print(json.dumps(told))
"""


def told(threads: int, *, local_rank: int = 0, local_workers: int = 1, warm: bool = False) -> dict[str, Any]:
    arguments = [str(int(value)) for value in (threads, local_rank, local_workers, warm)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_the_threads_that_compute_get_a_core_each() -> None:
    seen = told(len(CORES))
    assert [core for _, core in seen["pinned"]] == CORES
    assert seen["pinned"][0][0] == seen["here"]
    assert set(seen["busy"]) == {thread for thread, _ in seen["pinned"]}
    others = [allowed for task, allowed in seen["allowed"].items() if int(task) not in dict(seen["pinned"])]
    assert others and all(allowed == CORES for allowed in others)


@pytest.mark.slow
@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_workers_of_a_node_share_its_cores() -> None:
    for rank in (0, len(CORES) - 1):
        assert [core for _, core in told(1, local_rank=rank, local_workers=len(CORES))["pinned"]] == [CORES[rank]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threads", "local_workers", "warm"),
    [(len(CORES) + 1, 1, False), (len(CORES), 2, False), (len(CORES), 1, True)],
    ids=["too many threads", "too many workers", "they run already"],
)
def test_none_is_pinned_where_it_would_harm_or_nobody_knows_which(threads: int, local_workers: int, warm: bool) -> None:
    if len(CORES) < 2 and warm:
        pytest.skip("one thread runs always")
    assert told(threads, local_workers=local_workers, warm=warm)["pinned"] == []
