"""States written into runs of other processes: what is tried again, and that a server that hangs is not waited for."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from braidrec.tracking import trials
from braidrec.tracking.trials import TrialRuns


class Client:
    """MLflow, as far as it is asked; the first `fails` calls fail."""

    def __init__(self, fails: int = 0, status: str = "RUNNING") -> None:
        self.fails, self.status = fails, status
        self.tags: dict[str, dict[str, str]] = {}
        self.ends: list[tuple[str, str]] = []

    def set_tag(self, run_id: str, key: str, value: str) -> None:
        if self.fails:
            self.fails -= 1
            raise ConnectionError("no answer\nand more")
        self.tags.setdefault(run_id, {})[key] = value

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(status=self.status), data=SimpleNamespace(tags=self.tags[run_id]))

    def delete_tag(self, run_id: str, key: str) -> None:
        del self.tags[run_id][key]  # like MLflow it refuses where there is none

    def set_terminated(self, run_id: str, status: str) -> None:
        self.ends.append((run_id, status))


def runs_with(client: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[TrialRuns, list[str]]:
    said: list[str] = []
    monkeypatch.setattr(trials, "connect", lambda uri: client)
    return TrialRuns("http://me:secret@server", said.append), said


@pytest.mark.parametrize(("status", "ends"), [("RUNNING", [("a", "FAILED")]), ("FINISHED", [])])
def test_a_run_is_ended_only_if_nobody_else_has(
    monkeypatch: pytest.MonkeyPatch, status: str, ends: list[tuple[str, str]]
) -> None:
    client = Client(status=status)
    runs, said = runs_with(client, monkeypatch)
    runs.settle("a", {"state": "failed"}, "FAILED")
    runs.settle("b", {"state": "finished"})
    assert runs.wait(10)
    assert client.tags == {"a": {"state": "failed"}, "b": {"state": "finished"}} and client.ends == ends
    runs.close()
    assert said == []


def test_a_reason_that_is_no_more_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    runs, said = runs_with(client, monkeypatch)
    runs.settle("a", {"state": "stopped_early", "stopped": "budget.epochs=2 is used up", "failure": None})
    assert runs.wait(10) and client.tags["a"] == {"state": "stopped_early", "stopped": "budget.epochs=2 is used up"}
    runs.settle("a", {"state": "finished", "stopped": None, "failure": None})
    runs.close()
    assert client.tags == {"a": {"state": "finished"}} and said == []


def test_what_failed_is_tried_once_more_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(fails=1)
    runs, said = runs_with(client, monkeypatch)
    runs.settle("a", {"state": "failed"})
    assert runs.wait(10) and client.tags == {}
    runs.close()
    assert client.tags == {"a": {"state": "failed"}} and said == []
    client = Client(fails=2)
    runs, said = runs_with(client, monkeypatch)
    runs.settle("a", {"state": "failed"})
    runs.close()
    assert client.tags == {} and said == ["MLflow run a could not be given its state: no answer"]


def test_a_server_that_hangs_is_waited_for_no_longer_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()

    class Hanging(Client):
        def set_tag(self, run_id: str, key: str, value: str) -> None:
            answer.wait()

    runs, said = runs_with(Hanging(), monkeypatch)
    runs.settle("a", {"state": "failed"})
    start = time.monotonic()
    assert not runs.wait(0.2)
    runs.close(0.2)
    assert time.monotonic() - start < 5
    (sentence,) = said
    assert "did not answer for 0.2 s" in sentence and "trials.json" in sentence and "secret" not in sentence
    assert runs._thread.daemon, "nor by the interpreter, when it ends"
    answer.set()
