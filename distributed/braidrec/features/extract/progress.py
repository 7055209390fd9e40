"""The course of an extraction for a person: a live line on a terminal, a line every few seconds in a log."""

import time
from collections import Counter
from collections.abc import Callable

from rich.console import Console

from braidrec.display.text import duration, rate
from braidrec.features.extract.manifest import NO_MEDIUM
from braidrec.features.extract.pipeline import Answer

SECONDS_BETWEEN_LINES = 10.0


class ExtractionProgress:
    """Counts what is done and says so.

    Args:
        total: items that have a medium.
        what: "texts", "images", ….
    """

    def __init__(
        self, total: int, what: str, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total = total
        self.what = what
        self.encoded = self.kept = self.rejected_before = 0
        self.failed: Counter[str] = Counter()
        self._console = console or Console()
        self._clock = clock
        self._start = self._printed = clock()
        self._status = self._console.status(f"{what}: starting") if self._console.is_interactive else None

    def __enter__(self) -> "ExtractionProgress":
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    @property
    def num_failed(self) -> int:
        return sum(self.failed.values())

    @property
    def num_broken(self) -> int:
        """The failed without those of which the manifest says itself that they have no medium."""
        return self.num_failed - self.failed[NO_MEDIUM]

    @property
    def num_new(self) -> int:
        """Items whose medium was looked at by this run and not by an earlier one."""
        return self.encoded + self.num_failed - self.rejected_before

    @property
    def seconds(self) -> float:
        return self._clock() - self._start

    def add(self, answer: Answer) -> None:
        self.encoded += answer.encoded
        self.kept += answer.kept
        self.rejected_before += answer.kept_failed
        self.failed.update(answer.failed)
        line = self._line()
        if self._status is not None:
            self._status.update(line)
        elif self._clock() - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = self._clock()
            self._console.print(line, soft_wrap=True, highlight=False)

    def _line(self) -> str:
        done = self.encoded + self.kept + self.num_failed
        seconds = max(self.seconds, 1e-9)
        speed = self.num_new / seconds
        left = (self.total - done) / speed if speed > 0 else float("inf")
        parts = [f"{done:,} of {self.total:,} {self.what}", f"{rate(speed)}/s", f"ETA {duration(left)}"]
        if self.kept:
            parts.append(f"{self.kept:,} done before")
        parts.append(f"{self.num_failed:,} failed")
        return "  ".join(parts)
