"""A real MLflow server over HTTP: it takes everything, dies and comes back, or never comes back."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from braidrec.tracking import DatasetLineage, MlflowRun, TrackingOutcome
from braidrec.tracking.model import save_recommender
from braidrec.tracking.store import connect
from braidrec.training.events import EpochEnd, Finished

pytestmark = pytest.mark.slow

LINEAGE = DatasetLineage(name="planted", path="/data/planted", digest="0" * 64)
START_SECONDS = 240


class Server:
    """`mlflow server` in a process group of its own, which can be killed and started again on the same store."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *, wait: bool = True) -> None:
        store = ["--backend-store-uri", f"sqlite:///{self._folder}/server.db"]
        artifacts = ["--artifacts-destination", str(self._folder / "artifacts")]
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *artifacts, *address],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
                start_new_session=True,
            )
        if wait:
            wait_for(self._is_healthy, START_SECONDS, lambda: (self._folder / "server.log").read_text()[-2000:])

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


def make_run(server: Server, folder: Path, said: list[str], **changes: Any) -> MlflowRun:
    arguments: dict[str, Any] = {
        "uri": server.uri,
        "experiment": "over http",
        "run_name": folder.name,
        "outbox_path": folder / "outbox.jsonl",
        "system_metrics": False,
        "inform": said.append,
    }
    run = MlflowRun(**{**arguments, **changes})
    run.start(config={"seed": 42}, config_yaml="seed: 42\n", dataset=LINEAGE)
    return run


def wait_for(condition: Callable[[], bool], seconds: float, explain: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {seconds} s: {explain()}"
        time.sleep(0.1)


def log_epochs(run: MlflowRun, epochs: range) -> None:
    for epoch in epochs:
        run.handle(EpochEnd(epoch=epoch, metrics={"train/loss": 1 / epoch, "valid/recall@20": epoch / 100}))


def steps(client: Any, run_id: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run_id, "valid/recall_at_20")]


def has_epochs(client: Any, run: MlflowRun, count: int) -> bool:
    return run.run_id is not None and len(steps(client, run.run_id)) == count


def test_everything_arrives(server: Server, tmp_path: Path) -> None:
    import mlflow

    run = make_run(server, tmp_path, [], system_metrics=True)
    log_epochs(run, range(1, 31))
    run.handle(Finished(best_epoch=30, epochs_run=30, metrics={"test/recall@20": 0.25}))
    (tmp_path / "per_user.parquet").write_bytes(b"results")
    run.log_artifact(str(tmp_path / "per_user.parquet"), "per_user")
    run.log_plots(tmp_path)
    one = np.ones((1, 2), dtype=np.float32)
    save_recommender(tmp_path / "model", user_vectors=one, item_vectors=one, user_ids=["u"], item_ids=["i"])
    run.log_model(tmp_path / "model", registered_name="shop")
    outcome = run.finish("FINISHED")

    assert outcome.unsent == 0
    client = connect(server.uri)
    stored = client.get_run(outcome.run_id)
    assert stored.info.status == "FINISHED"
    assert stored.data.params == {"seed": "42"}
    assert stored.data.metrics["test/recall_at_20"] == 0.25
    assert steps(client, outcome.run_id) == list(range(1, 31))
    assert [entry.dataset.name for entry in stored.inputs.dataset_inputs] == ["planted"]
    assert {entry.path for entry in client.list_artifacts(outcome.run_id)} == {"config.yaml", "per_user", "plots"}
    local = client.download_artifacts(outcome.run_id, "per_user/per_user.parquet", str(tmp_path))
    assert Path(local).read_bytes() == b"results"
    mlflow.set_tracking_uri(server.uri)
    assert mlflow.pyfunc.load_model("models:/shop/1").predict({"user_id": "u"})["item_id"].tolist() == ["i"]


@dataclass(kw_only=True)
class Outage:
    """Runs that lived through one and the same death of the server, with what each said to its user."""

    client: Any
    outcomes: dict[str, TrackingOutcome] = field(default_factory=dict)
    said: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    replays: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)
    before_replay: str = ""


@pytest.fixture(scope="module")
def outage(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Outage:
    """One outage for all, because a server takes many seconds to start.

    "returned": the server dies in mid-run and is back before the end. "late": it is away at the start only.
    "lost": it dies in mid-run and is not back at the end. "unseen": it is away all the time.
    """
    outage = Outage(client=connect(server.uri))
    folders = {name: tmp_path_factory.mktemp(name) for name in ("returned", "late", "lost", "unseen")}

    def make(name: str, **changes: Any) -> MlflowRun:
        return make_run(server, folders[name], outage.said[name], **changes)

    returned, lost = make("returned"), make("lost", flush_seconds=2.0)
    for run in (returned, lost):
        log_epochs(run, range(1, 11))
        wait_for(partial(has_epochs, outage.client, run, 10), 120)
    server.kill()
    for epoch in range(11, 41):
        log_epochs(returned, range(epoch, epoch + 1))
        time.sleep(0.1)
    late = make("late")
    log_epochs(late, range(1, 6))
    end_without_server(outage, lost, make("unseen", flush_seconds=0.5, tags={"team": "a"}), folders["lost"])
    server.start()
    log_epochs(returned, range(41, 51))
    for name, run in (("returned", returned), ("late", late)):
        outage.outcomes[name] = run.finish("FINISHED")
    outage.before_replay = outage.client.get_run(outage.outcomes["lost"].run_id).info.status
    for name in ("lost", "unseen"):
        outage.replays[name] = replay(outage.said[name][-1])
    return outage


def end_without_server(outage: Outage, lost: MlflowRun, unseen: MlflowRun, folder: Path) -> None:
    log_epochs(lost, range(11, 21))
    (folder / "per_user.parquet").write_bytes(b"results")
    lost.log_artifact(str(folder / "per_user.parquet"), "per_user")
    outage.outcomes["lost"] = lost.finish("FAILED", "a reason")
    log_epochs(unseen, range(1, 4))
    outage.outcomes["unseen"] = unseen.finish("FINISHED")
    outage.replays["in vain"] = replay(outage.said["unseen"][-1])


def test_a_server_killed_in_the_middle_and_started_again_loses_nothing(outage: Outage) -> None:
    outcome = outage.outcomes["returned"]
    assert outcome.unsent == 0
    assert steps(outage.client, outcome.run_id) == list(range(1, 51))
    assert outage.client.get_run(outcome.run_id).info.status == "FINISHED"
    assert sum("cannot be used now" in line for line in outage.said["returned"]) == 1
    assert sum("is back" in line for line in outage.said["returned"]) == 1


def test_a_server_that_comes_late_gets_the_whole_run(outage: Outage) -> None:
    outcome = outage.outcomes["late"]
    assert outcome.unsent == 0
    assert steps(outage.client, outcome.run_id) == [1, 2, 3, 4, 5]
    stored = outage.client.get_run(outcome.run_id)
    assert stored.data.params == {"seed": "42"}
    assert stored.info.status == "FINISHED"
    assert len(outage.client.search_runs([stored.info.experiment_id], "attributes.run_name LIKE 'late%'")) == 1


def test_a_server_that_never_comes_back_leaves_a_file_to_send(outage: Outage) -> None:
    outcome = outage.outcomes["lost"]
    assert outage.before_replay == "RUNNING"
    assert outage.replays["lost"].returncode == 0, outage.replays["lost"].stderr
    assert f"messages sent to run {outcome.run_id}" in outage.replays["lost"].stdout
    assert steps(outage.client, outcome.run_id) == list(range(1, 21))
    stored = outage.client.get_run(outcome.run_id)
    assert stored.info.status == "FAILED"
    assert stored.data.tags["braidrec.end_reason"] == "a reason"
    files = outage.client.list_artifacts(outcome.run_id, "per_user")
    assert [entry.path for entry in files] == ["per_user/per_user.parquet"]
    assert outcome.outbox is not None
    assert [file.name for file in outcome.outbox.parent.glob("outbox*")] == ["outbox.jsonl.sent"]


def test_a_run_that_never_saw_its_server_is_made_by_the_replay(outage: Outage) -> None:
    assert outage.outcomes["unseen"].run_id is None
    assert outage.replays["in vain"].returncode == 1
    assert "nothing was sent" in outage.replays["in vain"].stdout
    assert outage.replays["unseen"].returncode == 0, outage.replays["unseen"].stderr
    run_id = re.search(r"sent to run (\w+)", outage.replays["unseen"].stdout)
    assert run_id is not None
    stored = outage.client.get_run(run_id[1])
    assert stored.info.status == "FINISHED"
    assert stored.data.tags["team"] == "a"
    assert stored.data.params == {"seed": "42"}
    assert steps(outage.client, run_id[1]) == [1, 2, 3]


def test_a_driver_killed_in_mid_run_is_closed_by_the_next(server: Server, tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from braidrec.tracking import DatasetLineage, MlflowRun\n"
        "run = MlflowRun(uri=sys.argv[1], experiment='over http', run_name='killed', outbox_path=Path(sys.argv[2]),\n"
        "                on_run_id=lambda run_id: print(run_id, flush=True))\n"
        "run.start(config={}, config_yaml='', dataset=DatasetLineage(name='d', path='/d', digest='0'))\n"
        "time.sleep(600)\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", code, server.uri, str(tmp_path / "killed.jsonl")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert driver.stdout is not None
        run_id = driver.stdout.readline().strip()
    finally:
        driver.kill()
        driver.wait()
    client = connect(server.uri)
    assert client.get_run(run_id).info.status == "RUNNING"
    said: list[str] = []
    make_run(server, tmp_path, said).finish("FINISHED")
    assert client.get_run(run_id).info.status == "KILLED"
    assert "was gone at" in client.get_run(run_id).data.tags["braidrec.orphaned"]
    assert any("closed 1 earlier run(s) as KILLED" in line for line in said)


def replay(advice: str) -> subprocess.CompletedProcess[str]:
    """Run the command exactly as the person was told it."""
    command = advice.split("send them later: ")[1]
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
