"""Which process owns a run, written into its tags, so that a later start can tell a dead owner from a living one."""

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

HOST_TAG = "braidrec.host"
MACHINE_TAG = "braidrec.machine"
PROCESS_TAG = "braidrec.pid"
STARTED_TAG = "braidrec.process_started"
HEARTBEAT_TAG = "braidrec.heartbeat"
"""Milliseconds since 1970."""


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process, recognisable after its id has been given to another one."""

    host: str
    machine: str
    """Hash of host name, boot and process-id namespace: within one value a process id means one process. Host names
    alone do not do: containers are often all called the same."""
    pid: int
    started: str
    """Start of the process, seconds since 1970 with two decimals."""

    @classmethod
    def of_this_process(cls) -> "Owner":
        return cls(host=socket.gethostname(), machine=_machine(), pid=os.getpid(), started=_start_of(os.getpid()) or "")

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> "Owner | None":
        """None where the tags do not name an owner: such a run is not ours to judge."""
        wanted = (HOST_TAG, MACHINE_TAG, PROCESS_TAG, STARTED_TAG)
        if not all(tag in tags for tag in wanted) or not tags[PROCESS_TAG].isdecimal():
            return None
        return cls(
            host=tags[HOST_TAG], machine=tags[MACHINE_TAG], pid=int(tags[PROCESS_TAG]), started=tags[STARTED_TAG]
        )

    def to_tags(self) -> dict[str, str]:
        return {
            HOST_TAG: self.host,
            MACHINE_TAG: self.machine,
            PROCESS_TAG: str(self.pid),
            STARTED_TAG: self.started,
        }

    def is_here(self) -> bool:
        """Whether its process id can be looked up by this process."""
        return self.machine == _machine()

    def is_alive(self) -> bool:
        """Whether the process still runs; only meaningful where `is_here`."""
        return _start_of(self.pid) == self.started


def _start_of(pid: int) -> str | None:
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


def _machine() -> str:
    parts = [socket.gethostname()]
    boot = Path("/proc/sys/kernel/random/boot_id")
    parts.append(boot.read_text().strip() if boot.is_file() else f"{psutil.boot_time():.0f}")
    namespace = Path("/proc/self/ns/pid")
    if namespace.exists():
        parts.append(os.readlink(namespace))
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
