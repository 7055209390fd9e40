"""The mailbox through which rank 0 talks to the driver. Light to import: it has a process of its own."""

from dataclasses import dataclass

import ray

from braidrec.training.events import Event
from braidrec.training.result import LoopResult


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The run cannot go on for a reason of its own; restarting workers would not help."""

    reason: str


Message = Event | LoopResult | Refused


@ray.remote(num_cpus=0)
class Mailbox:
    """Holds what rank 0 says until the driver fetches it."""

    def __init__(self) -> None:
        self._waiting: list[Message] = []

    def post(self, message: Message) -> None:
        self._waiting.append(message)

    def take(self) -> list[Message]:
        waiting, self._waiting = self._waiting, []
        return waiting
