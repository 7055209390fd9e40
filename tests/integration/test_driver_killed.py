"""`python jobs/train.py` with two workers, its driver killed with SIGKILL in mid-epoch, continued by the same command.

Every start takes many seconds: one run goes through all of it, and does the work of the training session's undisturbed
run; the tests look at its stages.
"""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from finished_session import SESSION_SECONDS, Session, epochs_of
from ray_processes import AGENTS, Surroundings, surroundings
from training_session import EPOCHS, KILLED_AFTER, STREAMED, checkpoint_after, settings

ROOT = Path(__file__).resolve().parents[2]
NAME = "disturbed"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SESSION_SECONDS + 400)]

Driver = subprocess.Popen[str]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """How one start of the run ended."""

    exit_status: int
    output: str
    mlflow_id: str
    mlflow_status: str
    processes_left: list[str]


@dataclass(frozen=True, kw_only=True)
class Course:
    """All that happened to the run."""

    killed: Stage
    refused: tuple[int, str]
    """Exit status and output of a process that tried to continue the run beside the one that did."""
    finished: Stage


def start(folder: Path, around: Surroundings, *arguments: str) -> Driver:
    command = [sys.executable, "jobs/train.py"]
    for setting in [*settings(folder, "planted", NAME), *STREAMED]:
        command += ["--set", setting]
    return subprocess.Popen(
        [*command, *arguments],
        env=around.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], driver: Driver) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline, "nothing happened for four minutes"
        time.sleep(0.02)


def ended(session: Session, around: Surroundings, driver: Driver) -> Stage:
    output, _ = driver.communicate(timeout=240)
    _, run = session.mlflow(NAME)
    return Stage(
        exit_status=driver.returncode,
        output=output,
        mlflow_id=run.info.run_id,
        mlflow_status=run.info.status,
        processes_left=around.left_over(seconds=120, apart_from=AGENTS),
    )


@pytest.fixture(scope="module")
def course(training_session: Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    folder = training_session.folder
    run = folder / "runs" / NAME
    with surroundings(tmp_path_factory.mktemp("driver")) as around:
        driver = start(folder, around)
        wait_for(checkpoint_after(run, KILLED_AFTER).is_dir, driver)
        time.sleep(epochs_of(run)[-1]["train/seconds"] / 3)
        driver.kill()
        killed = ended(training_session, around, driver)

        driver = start(folder, around, "--resume", NAME)
        wait_for((run / "lease.lock").is_file, driver)
        wait_for(lambda: f'"pid": {driver.pid}' in (run / "lease.json").read_text(), driver)
        second = start(folder, around, "--resume", NAME)
        said, _ = second.communicate(timeout=120)
        finished = ended(training_session, around, driver)
        yield Course(killed=killed, refused=(second.returncode, said), finished=finished)


def test_no_process_outlives_its_driver(course: Course) -> None:
    assert course.killed.exit_status == -signal.SIGKILL
    assert course.killed.mlflow_status == "RUNNING", "nobody was left to say otherwise"
    assert course.killed.processes_left == []
    assert course.finished.processes_left == []


def test_a_second_process_is_refused_while_one_writes_the_run(course: Course) -> None:
    status, said = course.refused
    assert status == 2, said
    assert said.splitlines()[-1].startswith(f"run '{NAME}' is being written by process ")


def test_the_run_ends_in_the_mlflow_run_in_which_it_began(training_session: Session, course: Course) -> None:
    assert course.finished.exit_status == 0, course.finished.output
    assert course.finished.mlflow_status == "FINISHED"
    assert course.finished.mlflow_id == course.killed.mlflow_id
    client, run = training_session.mlflow(NAME)
    for name, key in (("train/loss", "train/loss"), ("valid/ndcg@20", "valid/ndcg_at_20")):
        logged = {(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)}
        assert logged == set(enumerate((epoch[name] for epoch in training_session.epochs(NAME)), start=1))


def test_all_numbers_are_those_of_the_undisturbed_run(training_session: Session, course: Course) -> None:
    assert re.search(r"continuing after epoch [1-9]", course.finished.output)
    assert len(training_session.epochs(NAME)) == EPOCHS
    assert training_session.epochs(NAME) == training_session.epochs("whole")
    assert training_session.result(NAME) == training_session.result("whole")


def test_ray_prints_nothing(course: Course) -> None:
    for line in course.finished.output.splitlines():
        assert not any(word in line for word in ("raylet", "(pid=", "INFO", "WARNING", "Warning")), line
