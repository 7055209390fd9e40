"""SIGTERM of a training worker under Ray Train: it may finish its step, and the ranks save where they are."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ray.train.torch import TorchConfig

SECONDS_TO_SAVE = 30.0
"""For the ranks to save together, after which the process goes all the same: the others may be gone already."""


class Termination:
    """What becomes of a process that is sent SIGTERM.

    Attributes:
        given: it was sent one, while steps were taken.
    """

    def __init__(self) -> None:
        self.given = self._holds_back = False
        self._before: Any = signal.SIG_DFL

    def listen(self) -> None:
        """Take the place of Ray's handler, which ends the process. In the main thread."""
        self._before = signal.signal(signal.SIGTERM, self._take)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Inside it the process outlives SIGTERM until `heed`, or until the ranks have had their time."""
        self._holds_back = True
        try:
            yield
        finally:
            self._holds_back = False

    def heed(self) -> None:
        """End the process if it was sent SIGTERM: all is saved."""
        if self.given:
            os._exit(1)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._holds_back and not self.given:
            self.given = True
            timer = threading.Timer(SECONDS_TO_SAVE, os._exit, (1,))
            timer.daemon = True
            timer.start()
        elif callable(self._before):
            self._before(number, frame)
        else:
            os._exit(1)


TERMINATION = Termination()
"""Of this process."""


def listen() -> None:
    """In the main thread of a worker."""
    TERMINATION.listen()


class WarnedTorchConfig(TorchConfig):  # type: ignore[misc]
    """As `TorchConfig`, and the workers listen for SIGTERM.

    A signal is handled in the main thread, and a training runs in another; what a backend executes on its workers runs
    in the main thread.
    """

    @property
    def backend_cls(self) -> Any:
        return _warned(super().backend_cls)


def _warned(backend: Any) -> Any:
    class Warned(backend):  # type: ignore[misc]
        def on_training_start(self, worker_group: Any, backend_config: Any) -> None:
            super().on_training_start(worker_group, backend_config)
            worker_group.execute(listen)

    return Warned
