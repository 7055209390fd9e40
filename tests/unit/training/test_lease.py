"""The lease that keeps a second process out of a run."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from braidrec.config.load import ConfigError
from braidrec.data.storage import Location
from braidrec.tracking.owner import Owner
from braidrec.training import lease
from braidrec.training.lease import Lease


@pytest.fixture
def folder(tmp_path: Path) -> Location:
    (tmp_path / "one").mkdir()
    return Location.of(tmp_path / "one")


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """A folder on a filesystem that is not the local one, and so has no locks."""
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    (tmp_path / "one").mkdir()
    return Location(uri="store://one", filesystem=SubTreeFileSystem(str(tmp_path), LocalFileSystem()), path="one")


def content(folder: Location) -> dict[str, Any]:
    held: dict[str, Any] = json.loads(folder.child("lease.json").read_bytes())
    return held


def write_owner(folder: Location, owner: Owner, age: float = 0.0) -> None:
    held = {"token": "other", "owner": asdict(owner), "heartbeat": time.time() - age}
    folder.child("lease.json").write_bytes(json.dumps(held).encode())


ELSEWHERE = Owner(host="elsewhere", machine="another", pid=1, started="0.00")


def test_held_while_inside_and_gone_afterwards(folder: Location) -> None:
    with Lease(folder):
        owner = content(folder)["owner"]
        assert (owner["pid"], owner["host"]) == (os.getpid(), socket.gethostname())
    assert not folder.child("lease.json").is_file()
    with Lease(folder):
        pass


def test_gone_after_a_failure_too(folder: Location) -> None:
    with pytest.raises(RuntimeError, match="the run failed"), Lease(folder):
        raise RuntimeError("the run failed")
    assert not folder.child("lease.json").is_file()


@pytest.mark.parametrize("where", ["folder", "remote"])
def test_a_second_owner_is_refused(where: str, request: pytest.FixtureRequest) -> None:
    place: Location = request.getfixturevalue(where)
    with Lease(place):
        with pytest.raises(ConfigError, match=rf"run 'one' is being written by process {os.getpid()} on"), Lease(place):
            pass
        assert content(place)["owner"]["pid"] == os.getpid()


def start_holder(folder: Location) -> subprocess.Popen[str]:
    code = f"""
        import time
        from braidrec.data.storage import Location
        from braidrec.training.lease import Lease
        with Lease(Location.of({folder.path!r})):
            print("held", flush=True)
            time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_living_process_is_refused_and_a_killed_one_is_not(folder: Location) -> None:
    process = start_holder(folder)
    try:
        with pytest.raises(ConfigError, match=f"process {process.pid} on"), Lease(folder):
            pass
    finally:
        process.kill()
        process.wait()
    assert content(folder)["owner"]["pid"] == process.pid  # it could not clean up
    with Lease(folder):
        assert content(folder)["owner"]["pid"] == os.getpid()


def test_without_locks_a_dead_process_of_this_machine_is_known(remote: Location) -> None:
    """The owner died and its process number was given away: it did not start when the lease says."""
    write_owner(remote, replace(Owner.of_this_process(), started="1.00"))
    with Lease(remote):
        assert content(remote)["token"] != "other"


@pytest.mark.parametrize("where", ["folder", "remote"])
@pytest.mark.parametrize(("age", "alive"), [(0.0, True), (50.0, True), (61.0, False), (1e6, False)])
def test_an_owner_on_another_host_lives_by_its_heartbeat(
    where: str, age: float, alive: bool, request: pytest.FixtureRequest
) -> None:
    place: Location = request.getfixturevalue(where)
    write_owner(place, ELSEWHERE, age)
    if alive:
        with pytest.raises(ConfigError, match=r"process 1 on elsewhere \(heartbeat"), Lease(place):
            pass
        assert content(place)["token"] == "other"
    else:
        with Lease(place):
            assert content(place)["token"] != "other"


def test_the_heartbeat_is_renewed(folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    with Lease(folder):
        first = content(folder)
        deadline = time.time() + 100
        while (now := content(folder))["heartbeat"] == first["heartbeat"]:
            assert time.time() < deadline
            time.sleep(0.01)
    assert {**now, "heartbeat": 0} == {**first, "heartbeat": 0}
    assert now["heartbeat"] > first["heartbeat"]


def test_a_store_that_fails_for_a_while_costs_nothing(folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.01)
    failures = iter([True] * 5)
    held = Lease(folder)
    write = held._write
    broken = [False]

    def failing() -> None:
        if broken[0] and next(failures, False):
            raise OSError("no answer")
        write()

    monkeypatch.setattr(held, "_write", failing)
    with held:
        broken[0] = True
        first = content(folder)["heartbeat"]
        deadline = time.time() + 100
        while next(failures, None) is not None or content(folder)["heartbeat"] == first:
            assert time.time() < deadline
            time.sleep(0.01)


def test_who_lost_its_lease_ends(folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SIGTERM would: the run is recorded as stopped, and the other process is not disturbed."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.05)
    received: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        with Lease(folder):
            deadline = time.time() + 100
            while not received:
                assert time.time() < deadline
                write_owner(folder, ELSEWHERE)
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert received == [signal.SIGTERM]
    assert content(folder)["token"] == "other"  # not ours to remove


def test_a_reader_never_sees_half_a_lease(folder: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is being renewed must not look like one whose owner died while writing it."""
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.0)
    with Lease(folder):
        for _ in range(1_000):
            assert content(folder)["owner"]["pid"] == os.getpid()


@pytest.mark.parametrize("text", ['{"token": "abc", "ho', "[]", '{"token": 1, "owner": {}, "heartbeat": 0}', ""])
def test_a_lease_that_cannot_be_understood(folder: Location, text: str) -> None:
    folder.child("lease.json").write_bytes(text.encode())
    with Lease(folder):
        assert content(folder)["owner"]["pid"] == os.getpid()


def test_two_at_the_same_moment_without_locks(remote: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both found no lease; the other's arrives last: this one must notice."""
    mine = Lease(remote)
    write = mine._write

    def overtaken() -> None:
        write()
        write_owner(remote, ELSEWHERE)

    monkeypatch.setattr(mine, "_write", overtaken)
    with pytest.raises(ConfigError, match="taken by another process at the same moment"), mine:
        pass
    assert content(remote)["token"] == "other"
