"""One round of trainings on Ray Tune: the trials of the search, or the runs of the finalists.

Ray Tune places, starts, watches and restarts the processes and runs ASHA or median stopping. What to try next, what is
known of each trial and whether the budget is used up is decided here, in the driver, and written down by us: Tune's own
experiment files are pickles, which are never read.
"""

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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

SAME_FAILURES = 3
"""If so many trials have ended, and all failed in the same way, the fault is not in what is searched over."""


class Source(Protocol):
    """Where the trainings of a phase come from, and who wants to know what became of them."""

    def next(self) -> tuple[TrialRecord, Task] | None:
        """The next training; None: there is none any more."""
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


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How a phase uses the cluster."""

    share: Share
    worker_failures: int


class Phase:
    """Runs what a source gives, several at a time, until it gives no more.

    Args:
        source: what to train.
        book: where it is written down.
        judge: Ray Tune's scheduler; None: every training goes to its end.
        limits: what may run at a time.
        folder: for Tune's own files, which nobody reads; removed afterwards.
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
        self._by_trial: dict[str, tuple[TrialRecord, float]] = {}
        self._ended: list[TrialRecord] = []
        self.hopeless: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles what it holds into its experiment files, which nobody reads: there is nothing of us in them."""
        return _nothing, ()

    def __deepcopy__(self, _: Any) -> "Phase":
        return self

    def run(self) -> None:
        """Train everything.

        Raises:
            RunError: the first trials all failed in the same way.
        """
        try:
            _tuner(self, self._limits, self._folder).fit()
        finally:
            if self._folder.is_local:
                shutil.rmtree(Path(self._folder.path), ignore_errors=True)
        if self.hopeless is not None:
            raise RunError(f"the first {SAME_FAILURES} trials failed in the same way: {self.hopeless}")

    def next_task(self, trial_id: str) -> dict[str, Any] | None:
        """The configuration of Tune's next trial."""
        if self.hopeless is not None or self.source.is_used_up() is not None:
            return None
        found = self.source.next()
        if found is None:
            return None
        record, task = found
        self._by_trial[trial_id] = (record, self._clock() - record.seconds)
        if record not in self.book.records:
            self.book.records.append(record)
        self.book.save()
        return task.to_plain()

    def saw(self, trial_id: str, result: dict[str, Any]) -> None:
        """A validation of a trial."""
        record, start = self._by_trial[trial_id]
        record.saw(int(result["epoch"]), float(result["score"]))
        record.seconds = self._clock() - start
        self.source.saw(record)

    def is_over(self) -> str | None:
        """Why running trials should end now, if they should."""
        return self.hopeless or self.source.is_used_up()

    def ended(self, trial_id: str, result: dict[str, Any], death: str | None = None) -> None:
        """A trial has ended: by itself, by the judge, or with its process."""
        record, start = self._by_trial.pop(trial_id)
        record.seconds = self._clock() - start
        if death is not None or "failure" in result:
            record.state, record.reason = "failed", death or str(result["failure"])
        elif result.get("finished"):
            record.state, record.reason = "finished", None
            record.score, record.epochs = float(result["score"]), int(result["epoch"])
            record.metrics = result.get("metrics", {})
        else:
            why = self.is_over()
            record.state = "stopped_early"
            record.reason = why or f"less promising than others after {record.epochs} epochs"
        self._ended.append(record)
        self.source.ended(record)
        self.book.save()
        self._look_for_a_common_fault()

    def _look_for_a_common_fault(self) -> None:
        first = self._ended[:SAME_FAILURES]
        if len(first) < SAME_FAILURES or len(self._ended) > SAME_FAILURES:
            return
        reasons = {re.sub(r"\d[\d.e+-]*", "#", record.reason or "") for record in first if record.state == "failed"}
        if all(record.state == "failed" for record in first) and len(reasons) == 1:
            self.hopeless = first[0].reason


def _nothing() -> None:
    return None


class _Searcher(Searcher):  # type: ignore[misc]
    """Asks the phase. It sees no result: the phase's source is told what there is to know."""

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        self._phase = phase

    def suggest(self, trial_id: str) -> Any:
        task = self._phase.next_task(trial_id)
        return Searcher.FINISHED if task is None else task

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The phase learns it from `_Watcher`."""

    def save(self, checkpoint_path: str) -> None:
        """What is worth keeping is in the book."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is continued from its own records")


class _Scheduler(FIFOScheduler):  # type: ignore[misc]
    """The judge, over whom the budget has the last word."""

    def __init__(self, phase: Phase) -> None:
        super().__init__()
        self._phase, self._judge = phase, phase.judge or FIFOScheduler()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._judge.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if "score" not in result:
            return str(TrialScheduler.CONTINUE)
        self._phase.saw(trial.trial_id, result)
        decision = self._judge.on_trial_result(tune_controller, trial, result)
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
        self._phase.ended(trial.trial_id, trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        times = f"{self._worker_failures + 1} times" if self._worker_failures else "once"
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
