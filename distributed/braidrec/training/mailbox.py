"""The mailbox through which rank 0 talks to the driver. Light to import: it has a process of its own."""

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import ray

from braidrec.training.events import Event
from braidrec.training.result import LoopResult


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The run cannot go on for a reason of its own; restarting workers would not help."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Controlled:
    """Who is in control of the workers: the handle of Ray Train's controller."""

    controller: Any


@dataclass(frozen=True, kw_only=True)
class Left:
    """The run has saved where it is, or has nothing to save, and may be ended."""


Message = Event | LoopResult | Refused | Controlled | Left


@ray.remote(num_cpus=0)
class Mailbox:
    """Holds what ranks say until the driver has dealt with it."""

    def __init__(self) -> None:
        self._waiting: list[Message] = []
        self._posted = self._handled = 0
        self._changed = asyncio.Condition()
        self._told_to_go = asyncio.Event()

    async def tell_to_go(self) -> None:
        """By the driver, which was told to end: the workers are to save where they are."""
        self._told_to_go.set()

    async def until_told_to_go(self) -> None:
        """Return when the driver was told to end."""
        await self._told_to_go.wait()

    async def post(self, message: Message, *, until_handled: bool = False) -> None:
        """Leave a message; with `until_handled` return when the driver is done with it."""
        self._waiting.append(message)
        self._posted += 1
        number = self._posted
        async with self._changed:
            self._changed.notify_all()
            if until_handled:
                await self._changed.wait_for(lambda: self._handled >= number)

    async def take(self, handled: int, seconds: float) -> list[Message]:
        """What was not taken yet, in order; waits up to `seconds` for it. The first `handled` of all are done with."""
        async with self._changed:
            self._handled = handled
            self._changed.notify_all()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait_for(lambda: bool(self._waiting)), seconds)
        waiting, self._waiting = self._waiting, []
        return waiting
