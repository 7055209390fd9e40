"""A training worker killed with SIGKILL in mid-epoch: the run goes on by itself and ends as if nothing had happened.

`pytest -s` shows how long it took. The run streams its data anew each epoch, so that Ray Data has to start again too.
"""

from collections.abc import Callable

import pytest
from conftest import SESSION_SECONDS, Session
from test_ray_training import mlflow_run
from training_session import EPOCHS, KILLED_AFTER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SESSION_SECONDS + 60)]

TIMES = ("train/seconds", "train/interactions_per_second")


def numbers(session: Session, name: str) -> list[dict[str, float]]:
    return [{key: epoch[key] for key in epoch if key not in TIMES} for epoch in session.epochs(name)]


def test_every_number_is_that_of_an_undisturbed_run(
    training_session: Session, record_property: Callable[[str, object], None]
) -> None:
    killed, whole = training_session.step("killed"), training_session.step("whole")
    assert killed["starts"] == 2, "the worker was killed too late or not at all"
    assert killed["ends"] == list(range(1, EPOCHS + 1))
    seconds = killed["recovery_seconds"]
    record_property("recovery_seconds", seconds)
    print(f"\nfrom the death of a worker to the end of the epoch in which it died: {seconds:.1f} s")
    assert f"continuing after epoch {KILLED_AFTER}" in training_session.output
    assert len(numbers(training_session, "whole")) == EPOCHS
    assert "train/loss" in numbers(training_session, "whole")[0]
    assert numbers(training_session, "killed") == numbers(training_session, "whole")
    assert killed["result"]["metrics"] == whole["result"]["metrics"]
    assert killed["result"]["slices"] == whole["result"]["slices"]
    assert killed["result"]["example"] == whole["result"]["example"]


def test_mlflow_has_each_epoch_once(training_session: Session) -> None:
    client, run = mlflow_run(training_session, "killed")
    assert run.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(1, EPOCHS + 1))


def test_a_worker_that_dies_too_often_ends_the_run(training_session: Session) -> None:
    died = training_session.step("died")
    assert died["ends"] == [1]
    assert "died (killed, perhaps for want of memory, or crashed)" in died["run_error"]
    assert "workers.max_failures=0 is used up" in died["run_error"]
