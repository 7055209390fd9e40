"""Training workers killed with SIGKILL: the run goes on by itself and ends as if nothing had happened. One dies in
mid-epoch, all while the end of an epoch is reported, and all while a checkpoint is being written.

`pytest -s` shows how long it took. The run streams its data anew each epoch, so that Ray Data has to start again too.
"""

import re
from collections.abc import Callable

import pytest
from finished_session import SESSION_SECONDS, Session
from training_session import EPOCHS, KILLED_AFTER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SESSION_SECONDS + 60)]


@pytest.mark.parametrize("name", ["killed", "killed_in_report", "killed_in_saving"])
def test_every_number_is_that_of_an_undisturbed_run(
    training_session: Session, record_property: Callable[[str, object], None], name: str
) -> None:
    killed = training_session.step(name)
    assert killed["starts"] == 2, "the worker was killed too late or not at all"
    # Workers that die between the end of an epoch and its checkpoint leave the epoch to be reported again.
    assert list(dict.fromkeys(killed["ends"])) == list(range(1, EPOCHS + 1))
    assert len(killed["ends"]) <= EPOCHS + 1
    assert name != "killed_in_report" or killed["ends"].count(KILLED_AFTER) == 2
    seconds = killed["recovery_seconds"]
    record_property("recovery_seconds", seconds)
    print(f"\n{name}: from the death to the end of the next epoch: {seconds:.1f} s")
    assert re.search(r"continuing after epoch [1-9]", training_session.output)
    whole = training_session.epochs("whole")
    assert len(whole) == EPOCHS
    assert "train/loss" in whole[0]
    assert training_session.epochs(name) == whole
    assert training_session.result(name) == training_session.result("whole")


def test_mlflow_has_each_epoch_once(training_session: Session) -> None:
    client, run = training_session.mlflow("killed")
    assert run.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(1, EPOCHS + 1))


def test_a_worker_that_dies_too_often_ends_the_run(training_session: Session) -> None:
    died = training_session.step("died")
    assert died["ends"] == [1]
    assert "died (killed, perhaps for want of memory, or crashed)" in died["run_error"]
    assert "workers.max_failures=0 is used up" in died["run_error"]
