"""A worker without Ray: the loop in the driver's own process."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

import torch

from braidrec.data.delivery import Rows
from braidrec.training.context import SingleProcess
from braidrec.training.events import Event
from braidrec.training.signals import StopSignals


class LocalWorker(SingleProcess):
    """One process, whose events go straight to the listeners.

    Args:
        device: where to compute.
        handle: receives every event.
        signals: that end the run; None: whoever trains sees to them.
    """

    def __init__(
        self, device: torch.device, handle: Callable[[Event], None], signals: StopSignals | None = None
    ) -> None:
        super().__init__(device)
        self._handle, self._signals = handle, signals

    def taking_steps(self) -> AbstractContextManager[None]:
        return nullcontext() if self._signals is None else self._signals.held_back()

    def noticed(self) -> bool:
        return self._signals is not None and self._signals.waiting

    def heed(self) -> None:
        if self._signals is not None:
            raise self._signals.stop()

    def train_chunks(self) -> Iterable[Rows] | None:
        return None

    def emit(self, event: Event) -> None:
        self._handle(event)
