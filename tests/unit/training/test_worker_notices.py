"""What a Ray worker says after the ranks have saved where they are: without Ray, with a mailbox that is a list."""

from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from braidrec.training import ray_worker
from braidrec.training.mailbox import Left
from braidrec.training.ray_backend import Termination
from braidrec.training.ray_worker import RayWorker


class GoesError(Exception):
    """In place of the end of the process."""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Rank 0 of a run, in the middle of an epoch; `said` is what the driver gets."""
    monkeypatch.setattr(ray_worker, "TERMINATION", Termination())
    monkeypatch.setattr("os._exit", mock.Mock(side_effect=GoesError))
    monkeypatch.setattr(ray_worker.ray, "get", lambda waited: waited)
    worker: Any = object.__new__(RayWorker)
    worker.said = []
    worker.rank = 0
    worker._mailbox = SimpleNamespace(
        post=SimpleNamespace(remote=worker.said.append),
        until_told_to_go=SimpleNamespace(remote=lambda: None),
    )
    worker._of_ray = SimpleNamespace(preemption_info=None)
    worker._said = None
    worker._driver_goes, worker._will_take_steps, worker._heeded = False, True, None
    return worker


def test_a_node_that_is_drained_is_heeded_once_and_the_driver_hears_nothing(worker: Any) -> None:
    assert not worker.noticed()
    worker._of_ray.preemption_info = object()
    assert worker.noticed()
    worker.heed()
    assert worker.said == [], "or a driver that is told to end later would not wait"
    assert not worker.noticed()


def test_a_worker_that_is_sent_sigterm_goes_and_the_driver_hears_nothing(worker: Any) -> None:
    ray_worker.TERMINATION.given = True
    assert worker.noticed()
    with pytest.raises(GoesError):
        worker.heed()
    assert worker.said == []


def test_the_driver_that_is_told_to_end_hears_once_that_all_is_saved(worker: Any) -> None:
    """After a node was drained, too."""
    worker._of_ray.preemption_info = object()
    worker.heed()
    worker._listen()
    assert worker.noticed() and worker.said == []
    worker.heed()
    assert worker.said == [Left()]
    assert not worker.noticed()
    worker.heed()
    assert worker.said == [Left()]


def test_the_driver_does_not_wait_for_a_step_that_nobody_takes(worker: Any) -> None:
    worker._will_take_steps = False
    worker._listen()
    assert worker.said == [Left()]
