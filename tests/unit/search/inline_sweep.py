"""A whole sweep within the test's process: all of it but Ray, which would take longer to start than all its trials."""

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from search_cases import SHARE

from braidrec.search.phase import Phase, _Scheduler, _Watcher
from braidrec.search.process import Task, Training
from braidrec.search.sweep import Sweeper

Watch = Callable[[str, dict[str, Any]], None]


def run_phase(phase: Phase, watch: Watch = lambda name, result: None) -> None:
    """What Ray Tune does with a phase, one training after another.

    Args:
        watch: sees every result, with the name of its training, before the phase does.
    """
    scheduler, watcher = _Scheduler(phase), _Watcher(phase, 0)
    numbers = itertools.count()
    while (plain := phase.next_task(name := f"tune-{next(numbers)}")) is not None:
        trial = SimpleNamespace(trial_id=name, last_result={})
        scheduler.on_trial_add(None, trial)
        training = Training(Task(**plain))
        try:
            decision: str = TrialScheduler.CONTINUE
            while decision != TrialScheduler.STOP and not trial.last_result.get("done"):
                trial.last_result = training.next()
                watch(plain["name"], trial.last_result)
                if not trial.last_result.get("done"):
                    decision = scheduler.on_trial_result(None, trial, trial.last_result)
        finally:
            training.end()  # as its process does when it is ended
        scheduler.on_trial_complete(None, trial, trial.last_result)
        watcher.on_trial_complete(0, [], trial)


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """`run_sweep` trains in this process; the list is filled with what trainings hand over."""
    seen: list[tuple[str, dict[str, Any]]] = []

    def tune(phase: Phase) -> None:
        try:
            run_phase(phase, lambda name, result: seen.append((name, result)))
        except BaseException:
            phase.leave_off()
            raise

    monkeypatch.setattr(Phase, "_tune", tune)
    monkeypatch.setattr(Sweeper, "_connect", lambda self: SHARE)
    return seen
