"""`ray job submit` against a running cluster, from a shell in which no environment is activated."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Head:
    """A head node of its own: own ports, own temporary folder, own home."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        # Ray's sockets have long names, and a path of a socket has at most 107 bytes.
        self.temporary = Path(f"/tmp/braidrec-{os.getpid()}")
        self.environment = {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "RAY_TMPDIR": str(self.temporary)}
        self.dashboard = free_port()
        command = [RAY, "start", "--head", "--num-cpus=2", "--block", f"--port={free_port()}"]
        command += [f"--dashboard-port={self.dashboard}", "--dashboard-agent-listen-port=0"]
        command += [f"--temp-dir={self.temporary}", f"--ray-client-server-port={free_port()}"]
        self.log = (folder / "head.log").open("w")
        self.process = subprocess.Popen(
            command, env=self.environment, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True
        )

    def ray(self, *arguments: str, timeout: int = 300) -> "subprocess.CompletedProcess[str]":
        environment = self.environment | {"RAY_ADDRESS": f"http://127.0.0.1:{self.dashboard}"}
        return subprocess.run(
            [RAY, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
        )

    def submit(self, name: str, *settings: str, wait: bool = True) -> "subprocess.CompletedProcess[str]":
        command = ["job", "submit", "--working-dir", ".", "--submission-id", name]
        command += [] if wait else ["--no-wait"]
        command += ["--", "python3", "jobs/train.py", "--config", "configs/quickstart.yaml", "--set", f"name={name}"]
        for setting in settings:
            command += ["--set", setting]
        return self.ray(*command)

    def stop(self) -> None:
        descendants = psutil.Process(self.process.pid).children(recursive=True)
        os.killpg(self.process.pid, signal.SIGTERM)
        psutil.wait_procs(descendants, timeout=20)
        for process in descendants:
            if process.is_running():
                process.kill()
        self.process.wait(timeout=20)
        self.log.close()


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    started = Head(tmp_path_factory.mktemp("head"))
    try:
        deadline = time.monotonic() + 120
        while started.ray("job", "list").returncode:
            assert time.monotonic() < deadline, Path(started.log.name).read_text()[-2000:]
            time.sleep(1)
        yield started
    finally:
        started.stop()


def mlflow_status(head: Head, name: str) -> str | None:
    database = head.home / "braidrec" / "runs" / "mlflow.db"
    if not database.is_file():
        return None
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        found = connection.execute("select status from runs where name = ?", (name,)).fetchone()
    return None if found is None else str(found[0])


def test_a_job_that_succeeds(head: Head) -> None:
    done = head.submit("good", "training.epochs=3")
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    kept = head.home / "braidrec"  # the uploaded copy of the project is temporary
    assert (kept / "runs" / "good" / "result.json").is_file()
    assert f"storage: {kept}/runs" in log
    assert f"sqlite:///{kept}/runs/mlflow.db" in log
    assert mlflow_status(head, "good") == "FINISHED"


def test_a_job_that_fails_says_why_in_the_last_line(head: Head) -> None:
    done = head.submit("bad", "training.optimizer.learning_rate=1e30")
    assert done.returncode == 1
    log = head.ray("job", "logs", "bad").stdout.strip().splitlines()
    reasons = [line for line in log if line.startswith("the run failed:")]
    assert reasons and "before the update" in reasons[-1]
    assert log.index(reasons[-1]) >= len(log) - 2, log[-5:]
    assert mlflow_status(head, "bad") == "FAILED"


def test_a_job_that_is_stopped_ends_as_killed(head: Head) -> None:
    head.submit("stopped", "training.epochs=100000", "evaluation.patience=null", wait=False)
    metrics = head.home / "braidrec" / "runs" / "stopped" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not metrics.is_file():
        assert time.monotonic() < deadline, head.ray("job", "logs", "stopped").stdout[-2000:]
        time.sleep(0.5)
    head.ray("job", "stop", "stopped")
    while mlflow_status(head, "stopped") == "RUNNING":
        assert time.monotonic() < deadline + 60
        time.sleep(0.5)
    assert mlflow_status(head, "stopped") == "KILLED"
    while any("RayTrainWorker" in " ".join(p.cmdline()) for p in psutil.Process(head.process.pid).children(True)):
        assert time.monotonic() < deadline + 60, "a training worker is left"
        time.sleep(0.5)
