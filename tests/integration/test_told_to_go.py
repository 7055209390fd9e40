"""Runs that are told in mid-epoch that they will soon be gone: both ranks save where they are, and go on from there.

Of "noticed" a worker is sent SIGTERM, as a node that is taken away sends it, and its tables are dealt out; of
"told_to_go" the driver, as by `ray job stop`. `pytest -s` shows how long it took.
"""

import re
from collections.abc import Callable

import pytest
from finished_session import SESSION_SECONDS, Session
from training_session import EPOCHS, KILLED_AFTER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SESSION_SECONDS + 60)]

UNDISTURBED = {"noticed": "sharded", "told_to_go": "whole"}


@pytest.mark.parametrize("name", UNDISTURBED)
def test_every_number_is_that_of_an_undisturbed_run(
    training_session: Session, record_property: Callable[[str, object], None], name: str
) -> None:
    step = training_session.step(name)
    seconds = step["recovery_seconds"]
    record_property("recovery_seconds", seconds)
    print(f"\n{name}: from the notice to the end of the epoch: {seconds:.1f} s")
    whole = training_session.epochs(UNDISTURBED[name])[:EPOCHS]
    assert len(whole) == EPOCHS
    assert training_session.epochs(name) == whole


@pytest.mark.parametrize("name", UNDISTURBED)
def test_no_step_and_no_epoch_is_repeated(training_session: Session, name: str) -> None:
    """What an epoch has trained on is counted as well: a step too many or too few ends a run."""
    step = training_session.step(name)
    assert step["ends"] == list(range(1, EPOCHS + 1))
    told = "\n".join(step["notes"])
    place = r"after step ([0-9]+) of ([0-9]+) of epoch ([0-9]+)"
    saved = re.findall(f"told to go: saved {place}", told)
    assert re.findall(f"continuing {place}", told) == saved
    ((taken, of, epoch),) = saved
    assert 0 < int(taken) < int(of)
    assert int(epoch) == KILLED_AFTER + 1


@pytest.mark.parametrize("name", UNDISTURBED)
def test_what_was_saved_is_gone_at_the_end_and_nobody_is_left(training_session: Session, name: str) -> None:
    assert not (training_session.folder / "runs" / name / "mid_epoch").exists()
    assert not training_session.step(name)["workers_left"]


def test_the_workers_start_anew_by_themselves(training_session: Session) -> None:
    step = training_session.step("noticed")
    assert step["starts"] == 2
    assert step["groups_left"] == []
    _, run = training_session.mlflow("noticed")
    assert run.info.status == "FINISHED"


def test_the_driver_ends_as_killed_and_in_time(training_session: Session) -> None:
    step = training_session.step("told_to_go")
    assert step["stopped"] == "stopped by SIGTERM"
    assert step["status"] == "KILLED"
    assert step["seconds_to_stop"] < 15
    client, run = training_session.mlflow("told_to_go")
    assert run.info.status == "FINISHED"
    steps = [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")]
    assert steps == list(range(1, EPOCHS + 1))
