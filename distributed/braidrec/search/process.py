"""A trial inside a process of Ray Tune: the training on a thread, its validations handed over one at a time.

A class rather than a function, for two reasons. A process is used for one trial after another (`reset_config`), so that
only the first pays for importing torch and DGL. And a trial that the scheduler stops ends in `cleanup` or the next
`reset_config`, which wait for it: its MLflow run is closed and its lease given back, where a function's thread would be
cut off.

Nothing goes through Tune's own checkpoints. A training that is started again under its name goes on from its own, which
are verified when they are read and hold no pickles.
"""

import threading
import time
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import Any

from ray import tune

from braidrec.config.load import ConfigError, validate
from braidrec.config.run import RunConfig
from braidrec.data.errors import DatasetError
from braidrec.data.storage import Location
from braidrec.errors import EndedEarly, RunError
from braidrec.tracking.naming import first_line
from braidrec.training.driver import train
from braidrec.training.events import EpochEnd, Event
from braidrec.training.lease import HEARTBEAT_SECONDS, LEASE_SECONDS, Lease
from braidrec.training.listeners import MetricsFile

SECONDS_FOR_A_LEASE = LEASE_SECONDS + 2 * HEARTBEAT_SECONDS
"""How long a run is waited for that a process holds which is being ended, such as that of a killed driver. Where no
lock says that it is gone, its lease has to run out."""
_LONGEST_REASON = 500


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a process is to train. Plain data, for it travels as Tune's trial configuration.

    Attributes:
        name: of the run, and of its record.
        config: of the run.
        metric: validation metric of the objective.
        sign: 1 where it should be high, −1 otherwise.
        tags: of the MLflow run.
        tested: whether what the test says is handed over. Never for a trial of the search.
    """

    name: str
    config: dict[str, Any]
    metric: str
    sign: int
    tags: dict[str, str]
    tested: bool

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


class TrialProcess(tune.Trainable):  # type: ignore[misc]
    """Ray Tune's view of a training. A result is a validation: {"epoch", "score", "last"}.

    `score` is the best so far of the epochs that may be chosen, and the newest before there is one; `last` says whether
    the training ends with this epoch.
    """

    _training: "Training"

    def setup(self, config: dict[str, Any]) -> None:
        self._training = Training(Task(**config))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Another trial in this process, as soon as the one before has ended."""
        self._training.end()
        self._training = Training(Task(**new_config))
        return True

    def step(self) -> dict[str, Any]:
        return self._training.next()

    def cleanup(self) -> None:
        self._training.end()


class Training:
    """One training on a thread of its own, which stands still after each validation until it is told to go on."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._results: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self._go = threading.Semaphore(0)
        self._ended = False
        self._best: float | None = None
        self._best_counts = False
        self._thread = threading.Thread(target=self._run, name="training", daemon=True)
        self._thread.start()

    def next(self) -> dict[str, Any]:
        """The next validation; after the last a result with "done" and either "finished" or "failure"."""
        self._go.release()
        return self._results.get()

    def end(self) -> None:
        """End the training at the validation where it stands, if it has not ended; returns when it has."""
        self._ended = True
        self._go.release()
        self._thread.join()

    def handle(self, event: Event) -> None:
        """Hand over what a validation found. (A listener of the training.)"""
        if isinstance(event, EpochEnd):
            self._hand_over(event)

    def _hand_over(self, end: EpochEnd) -> None:
        value = end.metrics.get(f"valid/{self._task.metric}")
        if value is None:
            return
        sign, better_than = self._task.sign, self._best if self._best_counts and end.counts else None
        if better_than is None or sign * value > sign * better_than:
            self._best, self._best_counts = value, end.counts
        self._results.put({"epoch": end.epoch, "score": self._best, "last": end.last})
        self._go.acquire()
        if self._ended:
            raise EndedEarly(f"ended by the search after epoch {end.epoch}")

    def _run(self) -> None:
        started = time.monotonic()
        self._go.acquire()
        if self._ended:
            return
        try:
            outcome = self._train()
        except EndedEarly:
            return
        except (ConfigError, DatasetError, RunError) as error:
            outcome = {"failure": str(error)[:_LONGEST_REASON]}
        except BaseException as error:  # whatever a trial dies of, `next` waits for a result, and the sweep goes on
            outcome = {"failure": f"{type(error).__name__}: {first_line(error)}"[:_LONGEST_REASON]}
        self._results.put({**outcome, "seconds": time.monotonic() - started, "done": True})

    def _train(self) -> dict[str, Any]:
        config = validate(RunConfig, self._task.config, self._task.name)
        location = Location.of(config.storage).child(self._task.name)
        known = location.child("config.yaml").is_file()
        if known:
            for end in MetricsFile(location.child("metrics.jsonl")).history():
                self._hand_over(end)
        self._wait_for_lease(location)
        result = train(config, resume=self._task.name if known else None, listeners=(self,), tags=self._task.tags)
        found: dict[str, Any] = {
            "finished": True,
            "epoch": result.epochs_run,
            "score": result.metrics[f"valid/{self._task.metric}"],
        }
        return {**found, "metrics": result.metrics} if self._task.tested else found

    def _wait_for_lease(self, location: Location) -> None:
        """Let the process of an earlier session go first, if it is on its way out."""
        if not location.is_folder():
            return
        deadline = time.monotonic() + SECONDS_FOR_A_LEASE
        while True:
            try:
                with Lease(location):
                    return
            except ConfigError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
