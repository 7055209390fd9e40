"""The outbox against a sender that fails on purpose: nothing is lost, nothing waits too long, the order is kept."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from braidrec.tracking.messages import End, Message, MetricPoint, Metrics, Tags
from braidrec.tracking.outbox import Outbox
from braidrec.tracking.sender import RefusedError

END = End(status="FINISHED", end_time=1)
PATIENCE = 60
"""Seconds to wait for what happens at once, unless the machine has much else to do."""


class FakeSender:
    """Takes messages unless `away`; `fault` may raise for a message while the server is there."""

    def __init__(self) -> None:
        self.away = False
        self.fault: Callable[[Message], None] = lambda message: None
        self.sent: list[Message] = []
        self.opened = self.claims = self.heartbeats = self.orphan_hunts = 0

    def _contact(self) -> None:
        if self.away:
            raise ConnectionError("connection refused")

    def open(self) -> str:
        self._contact()
        self.opened += 1
        return "run-1"

    def claim(self) -> None:
        self._contact()
        self.claims += 1

    def heartbeat(self) -> None:
        self._contact()
        self.heartbeats += 1

    def close_orphans(self) -> list[str]:
        self.orphan_hunts += 1
        return []

    def server_answers(self) -> bool:
        return not self.away

    def send(self, message: Message) -> None:
        self._contact()
        self.fault(message)
        self.sent.append(message)

    def points(self) -> list[MetricPoint]:
        return [point for message in self.sent if isinstance(message, Metrics) for point in message.points]


@pytest.fixture
def sender() -> FakeSender:
    return FakeSender()


@pytest.fixture
def make(sender: FakeSender, said: list[str]) -> Iterator[Callable[..., Outbox]]:
    made: list[Outbox] = []

    def build(**changes: Any) -> Outbox:
        arguments = {"first_pause": 0.01, "longest_pause": 0.02, "where": "http://u:secret@h", "inform": said.append}
        made.append(Outbox(sender, **{**arguments, "on_open": lambda run_id: None, **changes}))
        return made[-1]

    yield build
    for outbox in made:
        outbox.close(0)


def metric(step: int, key: str = "loss") -> Metrics:
    return Metrics(points=(MetricPoint(key=key, value=float(step), timestamp=step, step=step),))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {PATIENCE} seconds"
        time.sleep(0.005)


def test_everything_arrives_in_order(sender: FakeSender, make: Callable[..., Outbox]) -> None:
    ids: list[str] = []
    outbox = make(on_open=ids.append)
    for step in range(50):
        outbox.put(metric(step))
    outbox.put(END)
    assert outbox.close(PATIENCE) == []
    assert [point.step for point in sender.points()] == list(range(50))
    assert sender.sent[-1] == END
    assert ids == ["run-1"]
    assert sender.orphan_hunts == 1


def test_an_outage_in_the_middle_loses_nothing(
    sender: FakeSender, make: Callable[..., Outbox], said: list[str]
) -> None:
    outbox = make()
    outbox.put(metric(0))
    wait_for(lambda: len(sender.sent) == 1)
    sender.away = True
    for step in range(1, 20):
        outbox.put(metric(step))
    wait_for(lambda: any("cannot be used now (connection refused)" in line for line in said))
    sender.away = False
    outbox.put(END)
    assert outbox.close(PATIENCE) == []
    assert [point.step for point in sender.points()] == list(range(20))
    assert sender.claims == 2, "another driver may have closed the silent run: it is claimed anew"
    assert sum("cannot be used" in line for line in said) == 1, "an outage is said once"
    assert sum("is back" in line for line in said) == 1
    assert not any("secret" in line for line in said)


def test_a_server_away_from_the_start(sender: FakeSender, make: Callable[..., Outbox]) -> None:
    sender.away = True
    outbox = make()
    outbox.put(metric(0))
    time.sleep(0.05)
    assert sender.opened == 0
    sender.away = False
    outbox.put(END)
    assert outbox.close(PATIENCE) == []
    assert sender.opened == 1
    assert len(sender.sent) == 2


def test_waiting_metrics_travel_together_but_not_past_other_messages(
    sender: FakeSender, make: Callable[..., Outbox]
) -> None:
    sender.away = True
    outbox = make()
    for step in range(1500):
        outbox.put(metric(step))
    outbox.put(Tags(values={"a": "b"}))
    outbox.put(metric(1500))
    sender.away = False
    outbox.put(END)
    assert outbox.close(PATIENCE) == []
    assert [message.kind for message in sender.sent] == ["metrics", "metrics", "tags", "metrics", "end"]
    assert [len(message.points) for message in sender.sent if isinstance(message, Metrics)] == [1000, 500, 1]
    assert [point.step for point in sender.points()] == list(range(1501))


def test_one_refused_message_does_not_take_its_neighbours_along(
    sender: FakeSender, make: Callable[..., Outbox], said: list[str]
) -> None:
    def refuse_bad(message: Message) -> None:
        if isinstance(message, Metrics) and any(point.key == "bad" for point in message.points):
            raise RefusedError("invalid name 'bad'")

    sender.fault = refuse_bad
    sender.away = True
    outbox = make()
    for step in range(10):
        outbox.put(metric(step, "bad" if step == 4 else "loss"))
    sender.away = False
    outbox.put(END)
    unsent = outbox.close(PATIENCE)
    assert [(entry.message, entry.reason) for entry in unsent] == [(metric(4, "bad"), "invalid name 'bad'")]
    assert [point.step for point in sender.points()] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert sum("did not take a 'metrics' message" in line for line in said) == 1


def test_a_message_that_keeps_failing_beside_a_living_server_is_set_aside(
    sender: FakeSender, make: Callable[..., Outbox]
) -> None:
    tries = []

    def artefact_store_is_down(message: Message) -> None:
        if isinstance(message, Tags):
            tries.append(message)
            raise OSError("bucket is gone\nand a page of trace")

    sender.fault = artefact_store_is_down
    outbox = make()
    outbox.put(Tags(values={"a": "b"}))
    outbox.put(metric(1))
    outbox.put(END)
    unsent = outbox.close(PATIENCE)
    assert [entry.reason for entry in unsent] == ["bucket is gone"]
    assert len(tries) == 6
    assert [message.kind for message in sender.sent] == ["metrics", "end"]


def test_a_passing_failure_beside_a_living_server_is_retried(sender: FakeSender, make: Callable[..., Outbox]) -> None:
    failures = iter([OSError("database is locked")] * 2)

    def locked_twice(message: Message) -> None:
        for failure in failures:
            raise failure

    sender.fault = locked_twice
    outbox = make()
    outbox.put(metric(0))
    outbox.put(END)
    assert outbox.close(PATIENCE) == []
    assert len(sender.sent) == 2


def test_close_does_not_wait_longer_than_told_and_returns_the_rest(
    sender: FakeSender, make: Callable[..., Outbox]
) -> None:
    sender.away = True
    outbox = make()
    outbox.put(metric(0))
    outbox.put(END)
    unsent = outbox.close(0.05)
    assert [(entry.message, entry.reason) for entry in unsent] == [(metric(0), None), (END, None)]
    with pytest.raises(RuntimeError, match="'metrics' message came too late"):
        outbox.put(metric(1))


def test_put_never_waits_for_a_server_that_hangs(sender: FakeSender, make: Callable[..., Outbox]) -> None:
    release = threading.Event()
    entered = threading.Event()

    def hang(message: Message) -> None:
        entered.set()
        release.wait(PATIENCE)

    sender.fault = hang
    outbox = make()
    outbox.put(metric(0))
    assert entered.wait(PATIENCE)
    for step in range(1, 1000):
        outbox.put(metric(step))
    assert sender.sent == [], "all puts returned while the first request still hung"
    assert len(outbox.close(0.01)) == 1000
    release.set()


def test_heartbeats_go_out_while_idle_and_while_busy(sender: FakeSender, make: Callable[..., Outbox]) -> None:
    outbox = make(heartbeat_seconds=0.02)
    wait_for(lambda: sender.heartbeats >= 2)
    before = sender.heartbeats
    steps = itertools.count()

    def busy() -> bool:
        outbox.put(metric(next(steps)))
        return sender.heartbeats > before

    wait_for(busy)
