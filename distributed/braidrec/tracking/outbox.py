"""A thread that delivers messages in order and waits out a lost server, so that the training never waits for it."""

import threading
import time
from collections import deque
from collections.abc import Callable

from braidrec.tracking.messages import Message, MetricPoint, Metrics, Unsent
from braidrec.tracking.naming import first_line, redact
from braidrec.tracking.sender import RefusedError, Sender

_TRIES_BESIDE_A_LIVING_SERVER = 6
_POINTS_A_REQUEST = 1000
_LONGEST_PAUSE_WHEN_CLOSING = 1.0


class Outbox:
    """Messages wait here in memory until they have arrived.

    A failure is waited out with growing pauses; the order is kept. A message that the server refuses, or that fails
    six times while the server answers otherwise (a broken artefact store), is set aside so that the rest can go on.

    Args:
        sender: delivers one message; made beforehand, because importing MLflow in a thread beside other imports could
            leave half-imported modules.
        where: the server, as messages to a person call it.
        inform: receives sentences for a person. Called in the outbox's thread, like `on_open`.
        on_open: receives the run's id once it is known.
        heartbeat_seconds: pause between two signs of life.
        first_pause, longest_pause: seconds after the first failure, doubled up to the longest.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        where: str,
        inform: Callable[[str], None],
        on_open: Callable[[str], None],
        heartbeat_seconds: float = 60.0,
        first_pause: float = 0.5,
        longest_pause: float = 15.0,
    ) -> None:
        self._sender = sender
        self._where = redact(where)
        self._inform = inform
        self._on_open = on_open
        self._heartbeat_seconds = heartbeat_seconds
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._pending: deque[Message] = deque()
        self._refused: list[Unsent] = []
        # Its lock is re-entrant: a signal handler of the driver may finish the run in the middle of a `put`.
        self._changed = threading.Condition()
        self._closing = False
        self._abandoned = False
        self._opened = False
        self._claimed = False
        self._next_heartbeat = 0.0
        self._outage_failures = 0
        self._tries = 0
        self._send_singly = 0
        self._thread = threading.Thread(target=self._deliver, name="braidrec-outbox", daemon=True)
        self._thread.start()

    def put(self, message: Message) -> None:
        """Never waits. Raises RuntimeError once the outbox is closed."""
        with self._changed:
            if self._closing:
                raise RuntimeError(f"the run is finished; a {message.kind!r} message came too late")
            self._pending.append(message)
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._pending)

    def close(self, timeout: float) -> list[Unsent]:
        """Wait at most `timeout` seconds for everything to arrive; returns what did not, in order."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
            return self._refused + [Unsent(message=message, reason=None) for message in self._pending]

    def _deliver(self) -> None:
        while not self._is_done():
            try:
                self._step()
            except Exception as error:  # whatever a foreign service throws must not end the training
                self._wait_out(error)
            else:
                self._after_success()

    def _is_done(self) -> bool:
        with self._changed:
            return self._abandoned or (self._closing and self._opened and not self._pending)

    def _step(self) -> None:
        """One exchange with the server. Raises what means that it cannot be reached."""
        if not self._opened:
            self._on_open(self._sender.open())
            self._opened = True
        if not self._claimed:
            self._claim()
        if time.monotonic() >= self._next_heartbeat:
            self._sender.heartbeat()
            self._next_heartbeat = time.monotonic() + self._heartbeat_seconds
        message, count = self._wait_for_message()
        if message is not None:
            self._send(message, count)

    def _claim(self) -> None:
        self._sender.claim()
        self._claimed = True
        self._next_heartbeat = time.monotonic() + self._heartbeat_seconds
        closed = self._sender.close_orphans()
        if closed:
            self._inform(f"MLflow: closed {len(closed)} earlier run(s) as KILLED, their process is gone")

    def _wait_for_message(self) -> tuple[Message | None, int]:
        """The next message and how many waiting ones it stands for; None when a heartbeat is due or all is over."""
        with self._changed:
            while not self._pending and not self._closing:
                remaining = self._next_heartbeat - time.monotonic()
                if remaining <= 0:
                    return None, 0
                self._changed.wait(remaining)
            return self._first_message() if self._pending else (None, 0)

    def _first_message(self) -> tuple[Message, int]:
        """Metrics that wait in a row travel as one request: after an outage there may be thousands."""
        first = self._pending[0]
        if not isinstance(first, Metrics) or self._send_singly:
            return first, 1
        points: list[MetricPoint] = []
        count = 0
        for message in self._pending:
            if not isinstance(message, Metrics) or (count and len(points) + len(message.points) > _POINTS_A_REQUEST):
                break
            points += message.points
            count += 1
        return Metrics(points=tuple(points)), count

    def _send(self, message: Message, count: int) -> None:
        try:
            self._sender.send(message)
        except RefusedError as refusal:
            if count == 1:
                self._set_first_aside(str(refusal))
            else:
                # The request is refused as a whole: find the one that it was for.
                self._send_singly = count
        except Exception as error:
            if not self._sender.server_answers():
                raise
            self._try_again_later(error)
        else:
            self._drop(count)

    def _try_again_later(self, error: Exception) -> None:
        self._tries += 1
        if self._tries >= _TRIES_BESIDE_A_LIVING_SERVER:
            self._set_first_aside(first_line(error))
        else:
            self._pause(self._tries)

    def _set_first_aside(self, reason: str) -> None:
        with self._changed:
            if self._abandoned:
                return
            message = self._pending[0]
            self._refused.append(Unsent(message=message, reason=redact(reason)))
        self._drop(1)
        self._inform(f"MLflow at {self._where} did not take a {message.kind!r} message: {redact(reason)}")

    def _drop(self, count: int) -> None:
        """Forget what is dealt with, unless `close` has handed it out as unsent; sending it twice does no harm."""
        with self._changed:
            if self._abandoned:
                return
            for _ in range(count):
                self._pending.popleft()
            self._tries = 0
            self._send_singly = max(0, self._send_singly - count)

    def _wait_out(self, error: Exception) -> None:
        if self._outage_failures == 0:
            self._inform(
                f"MLflow at {self._where} cannot be used now ({redact(first_line(error))}); the training goes on and "
                "what it logs is kept and sent later"
            )
        self._outage_failures += 1
        # Another driver may have taken the silence for death and closed the run: claim it anew.
        self._claimed = False
        self._pause(self._outage_failures)

    def _after_success(self) -> None:
        if self._outage_failures:
            self._outage_failures = 0
            self._inform(f"MLflow at {self._where} is back; what was kept is being sent")

    def _pause(self, failures: int) -> None:
        seconds = min(self._first_pause * 2.0 ** min(failures - 1, 30), self._longest_pause)
        until = time.monotonic() + seconds
        with self._changed:
            while not self._abandoned and time.monotonic() < until:
                self._changed.wait(min(until - time.monotonic(), _LONGEST_PAUSE_WHEN_CLOSING))
                if self._closing:
                    return
