"""A worker without Ray: the loop in the driver's own process."""

from collections.abc import Callable, Iterable

import torch

from braidrec.data.delivery import Rows
from braidrec.training.context import SingleProcess
from braidrec.training.events import Event


class LocalWorker(SingleProcess):
    """One process, whose events go straight to the listeners.

    Args:
        device: where to compute.
        handle: receives every event.
    """

    def __init__(self, device: torch.device, handle: Callable[[Event], None]) -> None:
        super().__init__(device)
        self._handle = handle

    def train_chunks(self) -> Iterable[Rows] | None:
        return None

    def emit(self, event: Event) -> None:
        self._handle(event)
