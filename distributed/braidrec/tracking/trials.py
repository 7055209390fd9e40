"""What a sweep's driver writes into the MLflow runs of its trials: their state, and their end where they cannot."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from braidrec.tracking.messages import RunIdentity, Status
from braidrec.tracking.naming import first_line, metric_name, redact, tags
from braidrec.tracking.sender import Sender
from braidrec.tracking.store import absolute_tracking_uri, connect

WAIT_SECONDS = 60.0
"""How long a sweep waits at its end for a server that does not answer."""


@dataclass(frozen=True, kw_only=True)
class _Order:
    """Tags for a run of an id, or of an identity by which it is found or made; and its end, if it is RUNNING."""

    run: str | RunIdentity
    values: dict[str, str | None]
    end_as: Status | None
    on_run_id: Callable[[str], None]


class TrialRuns:
    """Tags and ends runs of other processes, on a thread; what did not work is tried again once, at the end.

    Args:
        uri: tracking URI.
        inform: receives sentences for a person.
    """

    def __init__(self, uri: str, inform: Callable[[str], None]) -> None:
        self._uri, self._inform = absolute_tracking_uri(uri), inform
        self._client: Any = None
        self._todo: SimpleQueue[_Order | threading.Event | None] = SimpleQueue()
        self._again: list[_Order] = []
        # A daemon: a server that never answers must not keep the process from ending.
        self._thread = threading.Thread(target=self._work, name="trial-runs", daemon=True)
        self._thread.start()

    def settle(self, run_id: str, values: Mapping[str, str | None], end_as: Status | None = None) -> None:
        """Set tags of a run.

        Args:
            run_id: MLflow's id.
            values: the tags; None: one that is taken away, should it be there.
            end_as: end the run with this status if it is RUNNING: its process is gone.
        """
        self._todo.put(_Order(run=run_id, values=dict(values), end_as=end_as, on_run_id=lambda _: None))

    def make(
        self, identity: RunIdentity, values: Mapping[str, str | None], end_as: Status, on_run_id: Callable[[str], None]
    ) -> None:
        """The same for a training that ended before it had a run: one is made, unless one has its key.

        Args:
            on_run_id: receives MLflow's id of it, from the thread.
        """
        self._todo.put(_Order(run=identity, values=dict(values), end_as=end_as, on_run_id=on_run_id))

    def wait(self, seconds: float = WAIT_SECONDS) -> bool:
        """Wait until everything so far was tried; False where that takes longer."""
        reached = threading.Event()
        self._todo.put(reached)
        return reached.wait(seconds)

    def close(self, seconds: float = WAIT_SECONDS) -> None:
        """Wait for what is under way, and try once more what failed; no longer than so many seconds."""
        self._todo.put(None)
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._inform(
                f"MLflow at {redact(self._uri)} did not answer for {seconds:g} s: runs of trials may lack their state "
                "there; trials.json has all of them"
            )

    def _work(self) -> None:
        while (todo := self._todo.get()) is not None:
            if isinstance(todo, threading.Event):
                todo.set()
            else:
                self._try(todo, last=False)
        for order in self._again:
            self._try(order, last=True)

    def _try(self, order: _Order, *, last: bool) -> None:
        try:
            self._carry_out(order)
        except Exception as error:  # tracking never ends a sweep
            if last:
                name = order.run if isinstance(order.run, str) else order.run.run_name
                self._inform(f"MLflow run {name} could not be given its state: {first_line(error)}")
            else:
                self._again.append(order)

    def _carry_out(self, order: _Order) -> None:
        if self._client is None:
            self._client = connect(self._uri)
        if isinstance(order.run, str):
            run_id = order.run
        else:
            run_id = Sender(order.run, self._inform).open()
            order.on_run_id(run_id)
        for key, value in tags({key: value for key, value in order.values.items() if value is not None}).items():
            self._client.set_tag(run_id, key, value)
        run = self._client.get_run(run_id)
        for key in (metric_name(key) for key, value in order.values.items() if value is None):
            if key in run.data.tags:
                self._client.delete_tag(run_id, key)
        if order.end_as is not None and run.info.status == "RUNNING":
            self._client.set_terminated(run_id, order.end_as)
