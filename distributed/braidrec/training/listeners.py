"""What the driver does with a run's events beside showing them and telling MLflow."""

import json
import math
import threading
from collections.abc import Sequence
from dataclasses import asdict, replace

from braidrec.data.storage import Location
from braidrec.training.events import EpochEnd, Event, Listener, Started


class MetricsFile:
    """`metrics.jsonl` in the run's folder: one line an epoch. On resume, epochs that are run again are replaced.

    Args:
        location: the file.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self._lines: dict[int, str] = {}
        if location.is_file():
            for line in location.read_bytes().decode().splitlines():
                self._lines[int(json.loads(line)["epoch"])] = line

    def history(self) -> list[EpochEnd]:
        """What all lines were written for, ascending, without the metrics that are undefined."""
        return [EpochEnd(**json.loads(line)) for _, line in sorted(self._lines.items())]

    def handle(self, event: Event) -> None:
        if isinstance(event, Started):
            self._lines = {epoch: line for epoch, line in self._lines.items() if epoch < event.first_epoch}
        elif isinstance(event, EpochEnd):
            finite = {name: value for name, value in event.metrics.items() if math.isfinite(value)}
            self._lines[event.epoch] = json.dumps(asdict(replace(event, metrics=finite)))
            self._location.write_bytes("".join(f"{line}\n" for _, line in sorted(self._lines.items())).encode())


class FanOut:
    """Hands every event to all listeners, one event at a time."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners
        self._lock = threading.Lock()

    def handle(self, event: Event) -> None:
        with self._lock:
            for listener in self._listeners:
                listener.handle(event)


class Seconds:
    """Adds up the seconds by phase of all epochs that this process saw, for the summary."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}

    def handle(self, event: Event) -> None:
        if isinstance(event, EpochEnd):
            for name, value in event.metrics.items():
                if name.startswith("seconds/"):
                    phase = name.removeprefix("seconds/")
                    self.phases[phase] = self.phases.get(phase, 0.0) + value
