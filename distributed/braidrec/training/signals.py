"""SIGTERM (`ray job stop`, a scheduler) and SIGINT as an exception, so that a run ends through its `except` clauses."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from braidrec.errors import Stopped


class StopSignals:
    """Inside it both signals raise `Stopped` in the main thread; at once, or when it suits if they are held back.

    Signals reach the main thread only; a run on another thread is ended by whoever owns the process.

    Args:
        may_save: asked when one arrives, whether the run may still write where it is.
    Attributes:
        waiting: a signal has arrived and is held back.
    """

    def __init__(self, may_save: Callable[[], bool] = lambda: True) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._received: int = signal.SIGINT
        self._may_save = may_save
        self._holds_back = self.waiting = False
        self._count = 0

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
            raise self.stop() from None

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Inside it the first signal only makes `waiting` true: who looks at that ends in good order. A second one
        raises at once, and so does the first where nothing may be saved; one that is waiting at the end raises then."""
        self._holds_back = True
        try:
            yield
        finally:
            self._holds_back = False
        if self.waiting:
            raise self.stop()

    def stop(self) -> Stopped:
        """The exception of the signal that arrived last."""
        return Stopped(self._received, may_save=self.may_save())

    def may_save(self) -> bool:
        """Whether the run may write where it is: not after a second signal, whose sender wants it to end at once."""
        return self._count < 2 and self._may_save()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._count += 1
        if self._holds_back and self.may_save():
            self.waiting = True
            return
        raise self.stop()
