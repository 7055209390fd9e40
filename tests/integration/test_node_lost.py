"""Several nodes; one of them is lost in mid-epoch, and the run goes on with the workers that still fit.

`pytest -s` shows how long that took.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cluster_session import EPOCHS, LOST_AFTER
from ray_processes import Surroundings, surroundings

SECONDS = 600
pytestmark = [pytest.mark.slow, pytest.mark.timeout(SECONDS + 60)]


@dataclass(frozen=True, kw_only=True)
class Course:
    report: dict[str, Any]
    output: str
    surroundings: Surroundings


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    folder = tmp_path_factory.mktemp("cluster")
    with surroundings(folder) as around:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("cluster_session.py")), str(folder)],
            env=around.environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
            start_new_session=True,
        )
        report = folder / "report.json"
        assert done.returncode == 0 and report.is_file(), done.stdout[-5000:]
        yield Course(report=json.loads(report.read_text()), output=done.stdout, surroundings=around)


def test_three_workers_on_two_nodes_learn_as_much_as_two(course: Course) -> None:
    three, two = course.report["three"], course.report["whole"]
    assert [said.split()[0] for said in three["workers"] + two["workers"]] == ["3", "2"]
    assert three["ends"] == two["ends"] == list(range(1, EPOCHS + 1))
    assert three["metrics"]["test/recall@20"] == pytest.approx(two["metrics"]["test/recall@20"], rel=0.1)


def test_the_run_goes_on_with_the_node_that_is_left(
    course: Course, record_property: Callable[[str, object], None]
) -> None:
    lost, whole = course.report["lost"], course.report["whole"]
    assert [said.split()[0] for said in lost["workers"]] == ["2", "1"]
    assert list(dict.fromkeys(lost["ends"])) == list(range(1, EPOCHS + 1))
    assert len(lost["ends"]) <= EPOCHS + 1, "at most one epoch is repeated"
    assert f"continuing after epoch {LOST_AFTER}" in course.output
    assert lost["metrics"]["test/recall@20"] == pytest.approx(whole["metrics"]["test/recall@20"], rel=0.1)
    seconds = lost["recovery_seconds"]
    record_property("recovery_seconds", seconds)
    print(f"\nfrom the loss of a node to the end of the epoch in which it was lost: {seconds:.1f} s")


@pytest.mark.parametrize("name", ["three", "whole", "lost"])
def test_nothing_stays_reserved(course: Course, name: str) -> None:
    assert course.report[name]["groups_left"] == []


def test_no_process_outlives_the_driver(course: Course) -> None:
    assert course.surroundings.left_over(seconds=20) == []
