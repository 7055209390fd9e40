"""The reason that a run gives when its workers failed."""

import re

from ray.exceptions import ActorUnavailableError, OutOfMemoryError
from ray.train import TrainingFailedError, WorkerGroupError

from braidrec.training.ray_runner import _reason

MEMORY_FULL = r"^Ray ended a worker because its node's memory was full: .*batch_size.*--resume continues"


def test_a_worker_that_ray_ended_for_want_of_memory() -> None:
    of_ray = OutOfMemoryError("Task was killed due to the node running low on memory.\nRefer to the documentation on …")
    for failure in (of_ray, WorkerGroupError("2 workers failed", {0: ActorUnavailableError("gone", None), 1: of_ray})):
        assert re.match(MEMORY_FULL, _reason(failure, 3))


def test_dead_workers_are_named_before_the_errors_of_those_that_missed_them() -> None:
    unreachable = RuntimeError("Connection closed by peer")
    errors: dict[int, Exception] = {0: unreachable, 2: ActorUnavailableError("SIGKILL", None)}
    told = _reason(WorkerGroupError("2 workers failed", errors), 1)
    assert told.startswith("the process of worker 2 died")
    assert "workers.max_failures=1 is used up" in told and "Connection" not in told


def test_an_error_of_the_code_ends_in_its_last_line_once() -> None:
    same = {rank: ValueError("Traceback …\n  at x\nValueError: bad value\n") for rank in (0, 1)}
    assert _reason(WorkerGroupError("2 workers failed", same), 1) == "ValueError: bad value"
    assert _reason(TrainingFailedError(""), 1) == "no reason was given"
