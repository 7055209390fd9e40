"""Processes of Ray that a test started, found by the names that Ray gives them, and ended."""

import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

WORKER = "RayTrainWorker"
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""Of a Ray whose driver was killed, these two go last: a minute later, when they give up on Ray's central server."""
PATIENCE = {"RAY_raylet_start_wait_time_s": "200", "RAY_gcs_rpc_server_reconnect_timeout_s": "200"}
"""Environment of a Ray that a busy machine takes long to start."""
_MARK = "BRAIDREC_TEST_OF"


def named(ancestor: int, name: str) -> list[psutil.Process]:
    """Living descendants whose command line contains `name`."""
    found = []
    for process in psutil.Process(ancestor).children(recursive=True):
        try:
            if name in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def any_left(ancestor: int, name: str, *, seconds: float) -> bool:
    """Whether such a process is still there after all the time it is given to end."""
    deadline = time.monotonic() + seconds
    while named(ancestor, name):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.1)
    return False


class Surroundings:
    """A home and a folder for Ray that nothing else uses, and a mark in the environment of all that is started in it.

    Ray keeps its token in the home. Its sockets have long names, and the path of a socket has at most 107 bytes.
    """

    def __init__(self, folder: Path) -> None:
        self.temporary = Path(tempfile.mkdtemp(prefix="braidrec-", dir="/tmp"))
        self.home = folder / "home"
        self.home.mkdir()
        self.bare = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(self.home),
            "RAY_TMPDIR": str(self.temporary),
            _MARK: str(self.temporary),
        }
        """The environment of a shell in which nothing is activated."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        self.environment = inherited | self.bare | {"PATH": os.environ["PATH"]}

    def processes(self) -> list[psutil.Process]:
        """All that were started here and live, whoever their parent is by now."""
        found = []
        for process in psutil.process_iter():
            try:
                if self._belongs_here(process) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def _belongs_here(self, process: psutil.Process) -> bool:
        """By its mark, or by its logs: the names that Ray gives its processes are written over their environment."""
        return process.environ().get(_MARK) == str(self.temporary) or any(
            file.path.startswith(f"{self.temporary}/") for file in process.open_files()
        )

    def left_over(self, *, seconds: float, apart_from: Collection[str] = ()) -> list[str]:
        """Names of the processes that are still there after all the time they are given to end."""
        deadline = time.monotonic() + seconds
        while (left := self._names() - set(apart_from)) and time.monotonic() < deadline:
            time.sleep(0.2)
        return sorted(left)

    def _names(self) -> set[str]:
        names = set()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                names.add(process.name())
        return names


@contextmanager
def surroundings(folder: Path) -> Iterator[Surroundings]:
    """Ends what is left in them."""
    made = Surroundings(folder)
    try:
        yield made
    finally:
        while living := made.processes():
            for process in living:
                process.kill()
            psutil.wait_procs(living, timeout=5)
        shutil.rmtree(made.temporary, ignore_errors=True)
