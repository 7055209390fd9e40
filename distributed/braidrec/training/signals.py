"""SIGTERM (`ray job stop`, a scheduler) and SIGINT as an exception, so that a run ends through its `except` clauses."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from braidrec.errors import Stopped


class StopSignals:
    """Inside it both signals raise `Stopped` in the main thread.

    Signals reach the main thread only; a run on another thread is ended by whoever owns the process.
    """

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._received: int = signal.SIGINT

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def told_apart(self) -> Iterator[None]:
        """Name the signal again that Ray has made a plain KeyboardInterrupt of.

        While Ray waits in C++ it lets handlers run, drops any other exception of theirs, and raises a new one.
        """
        try:
            yield
        except KeyboardInterrupt:
            raise Stopped(self._received) from None

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        raise Stopped(number)
