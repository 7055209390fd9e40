"""The lease that keeps a second process out of a run."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from training_runs import run_config

from braidrec.config.load import ConfigError
from braidrec.training import run_folder
from braidrec.training.run_folder import Lease, RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(run_config(tmp_path / "data", tmp_path, "name=one"))


def lease_file(folder: RunFolder) -> Path:
    return Path(folder.uri) / "lease.json"


def write_owner(folder: RunFolder, **changes: Any) -> None:
    owner = {
        "token": "other",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "heartbeat": time.time(),
    }
    lease_file(folder).write_text(json.dumps({**owner, **changes}))


def test_held_while_inside_and_gone_afterwards(folder: RunFolder) -> None:
    with Lease(folder):
        owner = json.loads(lease_file(folder).read_text())
        assert (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname())
    assert not lease_file(folder).exists()
    with Lease(folder):
        pass


def test_gone_after_a_failure_too(folder: RunFolder) -> None:
    with pytest.raises(RuntimeError, match="the run failed"), Lease(folder):
        raise RuntimeError("the run failed")
    assert not lease_file(folder).exists()


def test_a_second_owner_is_refused(folder: RunFolder) -> None:
    with Lease(folder):
        with (
            pytest.raises(ConfigError, match=rf"run 'one' is being written by process {os.getpid()} on"),
            Lease(folder),
        ):
            pass
        assert lease_file(folder).exists()


def test_another_living_process_is_refused(folder: RunFolder) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        write_owner(folder, pid=process.pid, process_started=psutil.Process(process.pid).create_time(), heartbeat=0.0)
        with pytest.raises(ConfigError, match=f"process {process.pid}"), Lease(folder):
            pass
    finally:
        process.kill()
        process.wait()
    # Its heartbeat is old and its process gone.
    with Lease(folder):
        assert json.loads(lease_file(folder).read_text())["pid"] == os.getpid()


def test_a_number_that_another_process_has_now(folder: RunFolder) -> None:
    """The owner died and its process number was given away: it did not start when the lease says."""
    write_owner(folder, process_started=psutil.Process().create_time() - 1000)
    with Lease(folder):
        pass


@pytest.mark.parametrize(("age", "alive"), [(0.0, True), (50.0, True), (61.0, False), (1e6, False)])
def test_an_owner_on_another_host_lives_by_its_heartbeat(folder: RunFolder, age: float, alive: bool) -> None:
    write_owner(folder, host="elsewhere", pid=1, heartbeat=time.time() - age)
    if alive:
        with pytest.raises(ConfigError, match=r"process 1 on elsewhere \(heartbeat"), Lease(folder):
            pass
    else:
        with Lease(folder):
            pass


def test_the_heartbeat_is_renewed(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "HEARTBEAT_SECONDS", 0.01)
    with Lease(folder):
        first = json.loads(lease_file(folder).read_text())
        deadline = time.time() + 20
        while (now := json.loads(lease_file(folder).read_text()))["heartbeat"] == first["heartbeat"]:
            assert time.time() < deadline
            time.sleep(0.01)
    assert {**now, "heartbeat": 0} == {**first, "heartbeat": 0}
    assert now["heartbeat"] > first["heartbeat"]


def test_a_reader_never_sees_half_a_lease(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is being renewed must not look like one whose owner died while writing it."""
    monkeypatch.setattr(run_folder, "HEARTBEAT_SECONDS", 0.0)
    with Lease(folder):
        for _ in range(3_000):
            assert json.loads(lease_file(folder).read_text())["pid"] == os.getpid()


def test_a_lease_cut_off_while_it_was_written(folder: RunFolder) -> None:
    lease_file(folder).write_text('{"token": "abc", "ho')
    with Lease(folder):
        pass


def test_two_at_the_same_moment(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both found no lease; the other's arrives last: this one must notice."""
    lease = Lease(folder)
    write = lease._write

    def overtaken() -> None:
        write()
        write_owner(folder)

    monkeypatch.setattr(lease, "_write", overtaken)
    with pytest.raises(ConfigError, match="taken by another process at the same moment"), lease:
        pass
    assert json.loads(lease_file(folder).read_text())["token"] == "other"
