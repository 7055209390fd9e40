"""`ray job submit` against a running cluster, from a shell in which no environment is activated."""

import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray_processes import WORKER, Surroundings, any_left, surroundings

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
UPLOADED = ("jobs", "distributed", "configs", "pyproject.toml")
LEFT_BEHIND = (".git", ".venv", "datasets", "runs", "mlruns")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Head:
    """A head node of its own: own ports, own temporary folder, own home. It has a copy of the project to submit."""

    def __init__(self, folder: Path, around: Surroundings) -> None:
        self.around, self.project = around, folder / "project"
        self.kept = around.home / "braidrec"
        """Where jobs put what must outlive the uploaded copy of the project, which is temporary."""
        copy_project(self.project)
        self._address = f"http://127.0.0.1:{(dashboard := free_port())}"
        command = [RAY, "start", "--head", "--num-cpus=2", "--block", f"--port={free_port()}"]
        command += [f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port=0"]
        command += [f"--temp-dir={around.temporary}", f"--ray-client-server-port={free_port()}"]
        self.log = folder / "head.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env=around.bare, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def ray(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [RAY, *arguments],
            env=self.around.bare | {"RAY_ADDRESS": self._address},
            cwd=self.project,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def submit(self, name: str, *settings: str, wait: bool = True) -> "subprocess.CompletedProcess[str]":
        command = ["job", "submit", "--working-dir", ".", "--submission-id", name, *([] if wait else ["--no-wait"])]
        command += ["--", "python3", "jobs/train.py", "--config", "configs/quickstart.yaml", "--set", f"name={name}"]
        for setting in settings:
            command += ["--set", setting]
        return self.ray(*command)

    def job_log(self, name: str) -> list[str]:
        """What the job itself printed."""
        (file,) = self.around.temporary.glob(f"session_2*/logs/job-driver-{name}.log")
        return file.read_text().strip().splitlines()

    def mlflow_status(self, name: str) -> str | None:
        database = self.kept / "runs" / "mlflow.db"
        if not database.is_file():
            return None
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
            found = connection.execute("select status from runs where name = ?", (name,)).fetchone()
        return None if found is None else str(found[0])


def copy_project(target: Path) -> None:
    """What is submitted, and beside it what must not be."""
    target.mkdir()
    for name in (*UPLOADED, ".gitignore", ".rayignore"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target / name)
    for name in LEFT_BEHIND:
        (target / name).mkdir()
        (target / name / "large").write_bytes(b"0")


def wait_for(condition: Callable[[], bool], seconds: float, explain: Callable[[], object]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    folder = tmp_path_factory.mktemp("head")
    with surroundings(folder) as around:
        started = Head(folder, around)
        wait_for(lambda: started.ray("job", "list").returncode == 0, 240, started.log.read_text)
        yield started


@pytest.fixture(scope="module")
def good_job(head: Head) -> "subprocess.CompletedProcess[str]":
    return head.submit("good", "training.epochs=2")


def test_a_job_that_succeeds(head: Head, good_job: "subprocess.CompletedProcess[str]") -> None:
    log = good_job.stdout + good_job.stderr
    assert good_job.returncode == 0, log
    assert (head.kept / "runs" / "good" / "result.json").is_file()
    assert (head.kept / "datasets" / "quickstart" / "dataset.json").is_file(), "the job makes its own data"
    assert f"storage: {head.kept}/runs" in log
    assert f"sqlite:///{head.kept}/runs/mlflow.db" in log
    assert head.mlflow_status("good") == "FINISHED"


@pytest.mark.usefixtures("good_job")
def test_the_upload_leaves_behind_what_the_cluster_does_not_need(head: Head) -> None:
    packages = [
        folder
        for folder in head.around.temporary.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*")
        if folder.is_dir()
    ]
    assert packages, "the submitted folder was not found where Ray unpacks it"
    for package in packages:
        assert {path.name for path in package.iterdir()} == {*UPLOADED, ".gitignore", ".rayignore"}


def test_a_job_that_fails_says_why_in_the_last_line(head: Head) -> None:
    done = head.submit("bad", "training.optimizer.learning_rate=1e30")
    assert done.returncode == 1
    log = head.job_log("bad")
    # Whether what is no number is nan or infinite depends on the processor's order of sums.
    said = r"the run failed: epoch 1, step 1: loss=(nan|inf), regulariser=(nan|inf) before the update; try a lower "
    assert re.match(said, log[-1]), log[-1]
    assert sum(line.startswith("epochs 1 to") for line in log) == 1, "trying again does not help"
    assert "Traceback" not in "\n".join(log)
    assert head.mlflow_status("bad") == "FAILED"


def test_a_job_that_is_stopped_ends_as_killed(head: Head) -> None:
    head.submit("stopped", "training.epochs=100000", "evaluation.patience=null", wait=False)
    metrics = head.kept / "runs" / "stopped" / "metrics.jsonl"
    wait_for(metrics.is_file, 240, lambda: head.job_log("stopped"))
    head.ray("job", "stop", "stopped")
    wait_for(lambda: head.mlflow_status("stopped") != "RUNNING", 120, lambda: head.job_log("stopped"))
    assert head.mlflow_status("stopped") == "KILLED"
    assert head.job_log("stopped")[-1] == "stopped by SIGTERM"
    assert not any_left(head.process.pid, WORKER, seconds=120), "a training worker is left"
