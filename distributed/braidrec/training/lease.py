"""The lease on a folder: only one process writes a run."""

import contextlib
import fcntl
import json
import os
import secrets
import signal
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from braidrec.config.load import ConfigError
from braidrec.data.storage import Location
from braidrec.tracking.owner import Owner

LEASE_FILES = ("lease.json", "lease.lock")
HEARTBEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0
SETTLE_SECONDS = 1.0
"""On stores without locks: how long a taker waits before it looks whether another took the lease as well."""


class Lease:
    """Held while the context is open, kept alive by a heartbeat in `lease.json`.

    On a local or mounted disk a lock of the operating system decides; it goes when its process goes. Elsewhere the
    newest writer has it, and an owner counts as gone when its heartbeat is older than `LEASE_SECONDS`, or when its
    process is known to be dead. Who finds its lease in other hands ends its own process, as SIGTERM would.

    Args:
        folder: the run's folder, which must exist.
        what: what is written there, for the message.
    Raises:
        ConfigError: on entering, if another process holds it; the message names host and process.
    """

    def __init__(self, folder: Location, what: str = "run") -> None:
        self._folder = folder
        self._what = what
        self._file = folder.child("lease.json")
        self._token = secrets.token_hex(8)
        self._owner = Owner.of_this_process()
        self._lock: IO[str] | None = None
        self.is_lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="run-lease", daemon=True)

    def __enter__(self) -> "Lease":
        if self._folder.is_local:
            self._lock = self._locked()
        held = self._read()
        if held is not None and self._lives(held):
            self._unlock()
            raise ConfigError(self._taken_by(held))
        self._write()
        if not self._folder.is_local:
            time.sleep(SETTLE_SECONDS)
            held = self._read()
            if held is None or held["token"] != self._token:
                raise ConfigError(f"{self._what} {self._folder.name!r} was taken by another process at the same moment")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        held = self._read()
        if held is not None and held["token"] == self._token:
            self._file.remove()
        self._unlock()

    def _locked(self) -> IO[str]:
        lock = (Path(self._folder.path) / "lease.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise ConfigError(self._taken_by(self._read())) from None
        return lock

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()

    def _lives(self, held: dict[str, Any]) -> bool:
        owner = Owner(**held["owner"])
        if owner.is_here():
            # With the lock in our hands no process of this machine writes the run, whatever the file says.
            return self._lock is None and owner.is_alive()
        return time.time() - float(held["heartbeat"]) < LEASE_SECONDS

    def _taken_by(self, held: dict[str, Any] | None) -> str:
        who = "another process"
        if held is not None:
            age = time.time() - float(held["heartbeat"])
            who = f"process {held['owner']['pid']} on {held['owner']['host']} (heartbeat {age:.0f} s ago)"
        return (
            f"{self._what} {self._folder.name!r} is being written by {who}; wait for it, stop it, or use another name"
        )

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            # A store that does not answer for a while costs nothing: the next beat comes, and the lease lasts longer.
            with contextlib.suppress(OSError):
                held = self._read()
                if held is not None and held["token"] != self._token:
                    self.is_lost = True
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                self._write()

    def _write(self) -> None:
        content = {"token": self._token, "owner": asdict(self._owner), "heartbeat": time.time()}
        self._file.write_bytes(json.dumps(content).encode())

    def _read(self) -> dict[str, Any] | None:
        """What is written there; None if nothing is, or nothing that can be understood."""
        if not self._file.is_file():
            return None
        try:
            held: dict[str, Any] = json.loads(self._file.read_bytes())
            Owner(**held["owner"])
            return {**held, "token": str(held["token"]), "heartbeat": float(held["heartbeat"])}
        except (ValueError, KeyError, TypeError):
            return None
