"""Runs of dead processes are closed, all others are left alone."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from braidrec.tracking import close_orphans
from braidrec.tracking.orphans import ORPHAN_TAG
from braidrec.tracking.owner import HEARTBEAT_TAG, MACHINE_TAG, PROCESS_TAG, STARTED_TAG, Owner

# Prints its own owner's tags and waits to be killed.
_OWNER = (
    "import json, time; from braidrec.tracking.owner import Owner;"
    "print(json.dumps(Owner.of_this_process().to_tags()), flush=True); time.sleep(600)"
)


@pytest.fixture
def other_process() -> Iterator[tuple[Any, dict[str, str]]]:
    import json

    process = subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def experiment(client: Any) -> str:
    return str(client.create_experiment("tests"))


def status(client: Any, run: Any) -> str:
    return str(client.get_run(run.info.run_id).info.status)


def ago(seconds: float) -> str:
    return str(int((time.time() - seconds) * 1000))


def test_a_killed_process_loses_its_run_and_a_living_one_does_not(
    client: Any, uri: str, experiment: str, other_process: tuple[Any, dict[str, str]]
) -> None:
    process, tags = other_process
    heartbeat = ago(5)
    run = client.create_run(experiment, tags={**tags, HEARTBEAT_TAG: heartbeat})
    mine = client.create_run(experiment, tags=Owner.of_this_process().to_tags())
    assert close_orphans(uri, "tests") == []
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 100
    while not (closed := close_orphans(uri, "tests")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert closed == [run.info.run_id]
    assert status(client, run) == "KILLED"
    stored = client.get_run(run.info.run_id)
    assert f"process {tags[PROCESS_TAG]} on" in stored.data.tags[ORPHAN_TAG]
    assert str(stored.info.end_time) == heartbeat, "it ended when it was last heard of"
    assert status(client, mine) == "RUNNING"
    assert close_orphans(uri, "tests") == []


def test_a_process_id_given_to_another_process_does_not_hide_a_death(client: Any, uri: str, experiment: str) -> None:
    tags = {**Owner.of_this_process().to_tags(), STARTED_TAG: "1.00"}
    run = client.create_run(experiment, tags=tags)
    assert close_orphans(uri, "tests") == [run.info.run_id]


@pytest.mark.parametrize(("silence", "expected"), [(3599 - 10, "RUNNING"), (3601, "KILLED")])
def test_other_machines_are_judged_by_their_heartbeat(
    client: Any, uri: str, experiment: str, silence: float, expected: str
) -> None:
    # Same host name, another machine: a process id means nothing here, even one that does not exist.
    tags = {**Owner.of_this_process().to_tags(), MACHINE_TAG: "f" * 16, PROCESS_TAG: "4194304"}
    run = client.create_run(experiment, tags={**tags, HEARTBEAT_TAG: ago(silence)})
    close_orphans(uri, "tests")
    assert status(client, run) == expected


def test_what_has_no_owner_of_ours_is_left_alone(client: Any, uri: str, experiment: str) -> None:
    tags = Owner.of_this_process().to_tags()
    strangers = [
        client.create_run(experiment),
        client.create_run(experiment, tags={key: value for key, value in tags.items() if key != MACHINE_TAG}),
        client.create_run(experiment, tags={**tags, PROCESS_TAG: "not a number"}),
        client.create_run(experiment, tags={**tags, MACHINE_TAG: "f" * 16}),
    ]
    elsewhere = client.create_run(client.create_experiment("other"), tags={**tags, STARTED_TAG: "1.00"})
    assert close_orphans(uri, "tests") == []
    assert {status(client, run) for run in [*strangers, elsewhere]} == {"RUNNING"}
    assert close_orphans(uri, "no such experiment") == []


def test_more_orphans_than_a_page_holds(client: Any, uri: str, experiment: str, monkeypatch: Any) -> None:
    tags = {**Owner.of_this_process().to_tags(), STARTED_TAG: "1.00"}
    runs = {client.create_run(experiment, tags=tags).info.run_id for _ in range(5)}
    search = client.search_runs
    monkeypatch.setattr(client, "search_runs", lambda *a, **k: search(*a, **k, max_results=2))
    assert set(close_orphans(uri, "tests", client=client)) == runs
