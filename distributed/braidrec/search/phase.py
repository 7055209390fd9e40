"""One round of trainings on Ray Tune: the trials of the search, or the runs of the finalists.

Ray Tune places, starts, watches and restarts the processes and runs ASHA or median stopping. What to try next, what is
known of each trial and whether the budget is used up is decided here, in the driver, and written down by us: Tune's own
experiment files are pickles, which are never read.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from ray import tune
from ray.tune import CheckpointConfig, FailureConfig, TuneConfig
from ray.tune import RunConfig as TuneRunConfig
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from braidrec.data.storage import Location
from braidrec.errors import RunError
from braidrec.search.process import Task, TrialProcess
from braidrec.search.records import Book, TrialRecord
from braidrec.search.resources import Share

SECONDS_BETWEEN_SAVES = 10.0
"""How much of what running trials have done a driver that is killed forgets at most."""


class Source(Protocol):
    """Where the trainings of a phase come from, and who wants to know what became of them."""

    def next(self) -> tuple[TrialRecord, Task | None] | None:
        """The next training; None: there is none any more. One without a task is refused: its record says why."""
        ...

    def saw(self, record: TrialRecord) -> None:
        """A validation."""
        ...

    def ended(self, record: TrialRecord) -> None:
        """The record's state is final."""
        ...

    def is_used_up(self) -> str | None:
        """The budget that is used up, in words; None while there is some left."""
        ...

    def common_fault(self) -> str | None:
        """Why no training that is still to come could do better, judged after every end; None while one might."""
        ...

    def keep_time(self) -> None:
        """The book is about to be saved: how long all has taken so far belongs into it."""
        ...


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How a phase uses the cluster."""

    share: Share
    worker_failures: int


@dataclass(frozen=True, kw_only=True)
class _Running:
    """A training that Tune has begun: its record, and when it would have begun were it of one piece."""

    record: TrialRecord
    start: float


class Phase:
    """Runs what a source gives, several at a time, until it gives no more.

    Args:
        source: what to train.
        book: where it is written down.
        judge: Ray Tune's scheduler; None: every training goes to its end.
        limits: what may run at a time.
        folder: for Tune's own files, which nobody reads.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        source: Source,
        book: Book,
        judge: TrialScheduler | None,
        limits: Limits,
        folder: Location,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source, self.book, self.judge = source, book, judge
        self._limits, self._folder, self._clock = limits, folder, clock
        self._by_trial: dict[str, _Running] = {}
        self._first: tuple[TrialRecord, Task] | None = None
        self._saved = clock()
        self.hopeless: str | None = None
        self.fault: BaseException | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles what it holds into its experiment files, which nobody reads: there is nothing of us in them."""
        return _nothing, ()

    def __deepcopy__(self, _: Any) -> "Phase":
        return self

    def run(self) -> None:
        """Train everything.

        Raises:
            RunError: no training that is still to come could do better.
        """
        self._first = self._taken()
        if self._first is not None:  # with nothing to do, Tune would look into its files for what it has done
            self._tune()
        if self.fault is not None:
            raise self.fault
        if self.hopeless is not None:
            raise RunError(self.hopeless)

    def _tune(self) -> None:
        try:
            _tuner(self, self._limits, self._folder).fit()
        except BaseException as error:
            self.leave_off()
            if self.fault is not None and isinstance(error, Exception):
                raise self.fault from None  # and not what Tune makes of it
            raise

    def next_task(self, trial_id: str) -> dict[str, Any] | None:
        """The configuration of Tune's next trial."""
        found, self._first = self._first or self._taken(), None
        if found is None:
            return None
        record, task = found
        self._by_trial[trial_id] = _Running(record=record, start=self._clock() - record.seconds)
        return task.to_plain()

    def _taken(self) -> tuple[TrialRecord, Task] | None:
        """What is trained next; what is refused is written down on the way."""
        while self.is_over() is None:
            found = self.source.next()
            if found is None:
                return None
            record, task = found
            if record not in self.book.records:
                self.book.records.append(record)
            if task is not None:
                self._save()
                return record, task
            self._write_down(record)
        return None

    def saw(self, trial_id: str, result: dict[str, Any]) -> None:
        """A validation of a trial."""
        running = self._by_trial[trial_id]
        running.record.saw(int(result["epoch"]), float(result["score"]))
        running.record.seconds = self._clock() - running.start
        self.source.saw(running.record)
        if self._clock() - self._saved >= SECONDS_BETWEEN_SAVES:
            self._save()

    def is_over(self) -> str | None:
        """Why running trials should end now, if they should."""
        fault = None if self.fault is None else f"the sweep failed: {self.fault}"
        return fault or self.hopeless or self.source.is_used_up()

    @contextmanager
    def kept_fault(self) -> Iterator[None]:
        """Tune takes an error of ours for one of the trial's and goes on: it is kept, and raised by `run`."""
        try:
            yield
        except Exception as error:
            self.fault = self.fault or error
            raise

    def leave_off(self) -> None:
        """Write down how far the running trials have come."""
        for running in self._by_trial.values():
            running.record.seconds = self._clock() - running.start
        self._save()

    def ended(self, trial_id: str, result: dict[str, Any], death: str | None = None) -> None:
        """A trial has ended: by itself, by the judge, or with its process."""
        running = self._by_trial.pop(trial_id, None)
        if running is None and self.fault is not None:
            return  # the one in whose recording the fault was
        assert running is not None
        record = running.record
        record.seconds = self._clock() - running.start
        if death is not None or "failure" in result:
            record.state, record.reason = "failed", death or str(result["failure"])
        elif result.get("finished"):
            record.state, record.reason = "finished", None
            record.score, record.epochs = float(result["score"]), int(result["epoch"])
            record.metrics = result.get("metrics", {})
        else:
            why = self.is_over()
            record.state, record.cut = "stopped_early", why is not None
            record.reason = why or f"less promising than others after {record.epochs} epochs"
        self._write_down(record)

    def _write_down(self, record: TrialRecord) -> None:
        """An end, whose state and reason are in the record."""
        self.source.ended(record)
        self._save()
        self.hopeless = self.hopeless or self.source.common_fault()

    def _save(self) -> None:
        self._saved = self._clock()
        self.source.keep_time()
        self.book.save()


def _nothing() -> None:
    return None


class _Searcher(Searcher):  # type: ignore[misc]
    """Asks the phase. It sees no result: the phase's source is told what there is to know."""

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        self._phase = phase

    def suggest(self, trial_id: str) -> Any:
        with self._phase.kept_fault():
            task = self._phase.next_task(trial_id)
        return Searcher.FINISHED if task is None else task

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The phase learns it from `_Watcher`."""

    def save(self, checkpoint_path: str) -> None:
        """What is worth keeping is in the book."""


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """The judge, over whom the budget has the last word."""

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        self._phase, self._judge = phase, phase.judge or FIFOScheduler()
        self._condemned: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._judge.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "score" not in result:
            return str(TrialScheduler.CONTINUE)
        with self._phase.kept_fault():
            return self._decide(tune_controller, trial, result)

    def _decide(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        self._phase.saw(trial.trial_id, result)
        decision = TrialScheduler.CONTINUE
        # Whom it wanted to stop at its last epoch may die there and come again; a judge refuses to see it twice.
        if trial.trial_id not in self._condemned:
            decision = self._judge.on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP:
            self._condemned.add(trial.trial_id)
        if result["last"]:  # whatever the judge or the budget says, it ends by itself, as finished
            return str(TrialScheduler.CONTINUE)
        return str(TrialScheduler.STOP if self._phase.is_over() is not None else decision)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if "score" in result:
            self._judge.on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._judge.on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._judge.on_trial_remove(tune_controller, trial)


class _Watcher(tune.Callback):  # type: ignore[misc]
    def __init__(self, phase: Phase, worker_failures: int) -> None:
        self._phase, self._worker_failures = phase, worker_failures

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        with self._phase.kept_fault():
            self._phase.ended(trial.trial_id, trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        times = f"{self._worker_failures + 1} times" if self._worker_failures else "once"
        with self._phase.kept_fault():
            self._phase.ended(
                trial.trial_id, {}, f"its process died {times} (killed, perhaps for want of memory, or crashed)"
            )


def _tuner(phase: Phase, limits: Limits, folder: Location) -> Any:
    return tune.Tuner(
        tune.with_resources(TrialProcess, limits.share.resources),
        tune_config=TuneConfig(
            search_alg=_Searcher(phase),
            scheduler=_Scheduler(phase),
            num_samples=-1,
            max_concurrent_trials=limits.share.concurrency,
            reuse_actors=True,
        ),
        run_config=TuneRunConfig(
            name=folder.name,
            storage_path=folder.uri.rpartition("/")[0],
            verbose=0,
            callbacks=[_Watcher(phase, limits.worker_failures)],
            failure_config=FailureConfig(max_failures=limits.worker_failures),
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
        ),
    )
