"""What the driver does with events: one line an epoch, the same order for all, seconds by phase."""

import json
import threading
from pathlib import Path

from braidrec.data.storage import Location
from braidrec.training.events import EpochEnd, Event, Started
from braidrec.training.listeners import FanOut, MetricsFile, Seconds


def epoch(number: int, loss: float, **more: float) -> EpochEnd:
    return EpochEnd(epoch=number, metrics={"train/loss": loss, **more}, best=number == 2)


def started(first: int) -> Started:
    return Started(first_epoch=first, epochs=9, steps_per_epoch=1, interactions_per_epoch=1)


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_one_line_an_epoch(tmp_path: Path) -> None:
    metrics = MetricsFile(Location.of(tmp_path / "run" / "metrics.jsonl"))
    for event in (started(1), epoch(1, 0.5), epoch(2, 0.25, **{"valid/auc": float("nan"), "valid/rmse": float("inf")})):
        metrics.handle(event)
    assert lines(tmp_path / "run" / "metrics.jsonl") == [
        {"epoch": 1, "metrics": {"train/loss": 0.5}, "best": False, "counts": True, "last": False},
        {"epoch": 2, "metrics": {"train/loss": 0.25}, "best": True, "counts": True, "last": False},
    ]
    assert metrics.history() == [epoch(1, 0.5), epoch(2, 0.25)]


def test_epochs_that_are_run_again_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    first = MetricsFile(Location.of(file))
    for number in range(1, 12):
        first.handle(epoch(number, float(number)))
    resumed = MetricsFile(Location.of(file))
    assert [end.epoch for end in resumed.history()] == list(range(1, 12))
    resumed.handle(started(9))
    assert [end.epoch for end in resumed.history()] == list(range(1, 9))
    resumed.handle(epoch(9, -1.0))
    assert [(line["epoch"], line["metrics"]["train/loss"]) for line in lines(file)[-2:]] == [(8, 8.0), (9, -1.0)]


def test_all_listeners_see_all_events_in_one_order() -> None:
    """Also those that two threads emit at once: no listener is called twice at a time."""
    inside = threading.Semaphore(1)

    class Keeper:
        def __init__(self) -> None:
            self.events: list[Event] = []

        def handle(self, event: Event) -> None:
            assert inside.acquire(blocking=False)
            self.events.append(event)
            inside.release()

    first, second = Keeper(), Keeper()
    everyone = FanOut([first, second])
    threads = [
        threading.Thread(target=lambda start=start: [everyone.handle(epoch(start + n, 0.0)) for n in range(200)])
        for start in (0, 1000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(first.events) == 400
    assert first.events == second.events


def test_seconds_add_up_by_phase() -> None:
    seconds = Seconds()
    for event in (
        started(1),
        epoch(1, 0.0, **{"seconds/data": 1.0, "seconds/optimizer": 2.0}),
        epoch(2, 0.0, **{"seconds/data": 0.5}),
    ):
        seconds.handle(event)
    assert seconds.phases == {"data": 1.5, "optimizer": 2.0}
