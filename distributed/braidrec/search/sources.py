"""Where a phase's trainings come from: suggestions, within a budget; or the finalists, with every seed."""

import re
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from braidrec.config.load import ConfigError
from braidrec.config.sweep import SweepConfig
from braidrec.search.folder import SweepFolder
from braidrec.search.process import Task
from braidrec.search.records import Book, TrialRecord
from braidrec.search.resources import Share
from braidrec.search.runs import Runs
from braidrec.search.suggest import Suggester

SAME_FAILURES = 3
"""If so many trials have ended, and all failed in the same way, the fault is not in what is searched over."""


class Audience(Protocol):
    """Who is told of every training: the display, MLflow."""

    def began(self, record: TrialRecord) -> None: ...
    def saw(self, record: TrialRecord) -> None: ...
    def ended(self, record: TrialRecord) -> None: ...


class Tasks:
    """From a record to what a process trains.

    Args:
        folder: of the sweep, in which theirs go.
        runs: makes configurations.
        share: what each gets of the cluster.
        tracking_uri: of MLflow; None: as the base says.
        tags: of the MLflow run of a record.
    """

    def __init__(
        self,
        folder: SweepFolder,
        runs: Runs,
        share: Share,
        tracking_uri: str | None,
        tags: Callable[[TrialRecord], dict[str, str]],
    ) -> None:
        self._folder, self._runs, self._share, self._uri, self._tags = folder, runs, share, tracking_uri, tags

    def name_of(self, what: str) -> str:
        """A name that no training of another sweep has, since MLflow shows them side by side."""
        return f"{self._folder.name}-{what}"

    def of(self, record: TrialRecord) -> Task:
        """A trial is never tested; a final run is, once, at its end; neither is watched on test meanwhile."""
        tested = record.role == "final"
        config = self._runs.config(record.overrides)
        evaluation = {"test": tested, "watch_test": False}
        tracking = {"uri": self._uri or config.tracking.uri, "registered_model": None}
        changed = config.model_copy(
            update={
                "name": record.name,
                "seed": record.seed,
                "storage": self._folder.runs.uri,
                "workers": self._share.workers,
                "evaluation": config.evaluation.model_copy(update=evaluation),
                "tracking": config.tracking.model_copy(update=tracking),
            }
        )
        return Task(
            name=record.name,
            config=changed.to_plain(),
            metric=self._runs.metric,
            sign=self._runs.sign,
            tags=self._tags(record),
            tested=tested,
        )


class SearchSource:
    """The trials of the search. What an earlier session left unfinished comes first.

    Args:
        sweep: budget and algorithm.
        runs: the space and the objective.
        book: what is known already.
        tasks: makes tasks.
        audience: is told.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        sweep: SweepConfig,
        runs: Runs,
        book: Book,
        tasks: Tasks,
        audience: Audience,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget, self._runs, self._book, self._tasks, self._audience = sweep.budget, runs, book, tasks, audience
        self._seed = runs.base.seed
        self._suggester = Suggester(runs.space, sweep.algorithm, sweep.seed, "max" if runs.sign == 1 else "min")
        self._clock, self._start = clock, clock() - book.seconds
        if self.is_used_up() is None:
            _take_up(book)
        self._waiting = [record for record in book.trials() if record.state == "running"]
        self._numbers = len(book.trials())
        for record in book.trials():
            if record.state == "running":
                self._suggester.expect(record)
            else:
                self._suggester.tell(record)

    @property
    def total(self) -> int | None:
        """How many trials there will be, as far as that is known."""
        limits = [limit for limit in (self._budget.trials, self._suggester.total) if limit is not None]
        return min(limits, default=None)

    def next(self) -> tuple[TrialRecord, Task | None] | None:
        record = self._waiting.pop(0) if self._waiting else self._new()
        if record is None:
            return None
        self._audience.began(record)
        try:
            return record, self._tasks.of(record)
        except ConfigError as error:  # a point between those that were checked beforehand
            record.state, record.reason = "failed", str(error)
            return record, None

    def saw(self, record: TrialRecord) -> None:
        self._audience.saw(record)

    def keep_time(self) -> None:
        self._book.seconds = self._clock() - self._start

    def common_fault(self) -> str | None:
        ended = [record for record in self._book.trials() if record.state != "running"]
        return same_failure(ended) if len(ended) == SAME_FAILURES else None

    def ended(self, record: TrialRecord) -> None:
        self._suggester.tell(record)
        self._audience.ended(record)

    def is_used_up(self) -> str | None:
        seconds, epochs = self._budget.seconds, self._budget.epochs
        if seconds is not None and self._clock() - self._start >= seconds:
            return f"budget.seconds={seconds:g} is used up"
        if epochs is not None and sum(record.epochs for record in self._book.trials()) >= epochs:
            return f"budget.epochs={epochs} is used up"
        return None

    def _new(self) -> TrialRecord | None:
        number = self._numbers + 1
        if self._budget.trials is not None and number > self._budget.trials:
            return None
        point = self._suggester.suggest(number)
        if point is None:
            return None
        self._numbers = number
        name = self._tasks.name_of(f"trial-{number:04d}")
        return TrialRecord(name=name, number=number, role="trial", overrides=point, seed=self._seed)


class FinalSource:
    """The finalists' runs, all seeds of a candidate before the next candidate; what is finished is not repeated.

    Args:
        candidates: the trials to repeat, best first.
        seeds: of the runs of each.
        book, tasks, audience: as for the search.
    """

    def __init__(
        self, candidates: list[TrialRecord], seeds: list[int], book: Book, tasks: Tasks, audience: Audience
    ) -> None:
        self._tasks, self._audience = tasks, audience
        wanted = [self._record(book, trial, seed) for trial in candidates for seed in seeds]
        self._waiting = [record for record in wanted if record.state == "running"]
        self.total = len(wanted)

    def next(self) -> tuple[TrialRecord, Task] | None:
        if not self._waiting:
            return None
        record = self._waiting.pop(0)
        self._audience.began(record)
        return record, self._tasks.of(record)

    def saw(self, record: TrialRecord) -> None:
        self._audience.saw(record)

    def ended(self, record: TrialRecord) -> None:
        self._audience.ended(record)

    def is_used_up(self) -> str | None:
        return None

    def common_fault(self) -> str | None:
        """None: a candidate whose runs all fail is no reason to give up the others."""
        return None

    def keep_time(self) -> None:
        """Nothing: only the search has a budget."""

    def _record(self, book: Book, trial: TrialRecord, seed: int) -> TrialRecord:
        name = self._tasks.name_of(f"final-{trial.number:04d}-seed{seed}")
        return book.find(name) or TrialRecord(
            name=name, number=trial.number, role="final", overrides=trial.overrides, seed=seed
        )


def same_failure(ended: Sequence[TrialRecord]) -> str | None:
    """What all of them failed of, whatever the numbers in it; None where one did not, or of something else."""
    reasons = {re.sub(r"\d[\d.e+-]*", "#", record.reason or "") for record in ended}
    if len(reasons) > 1 or any(record.state != "failed" for record in ended):
        return None
    return f"the first {len(ended)} trials failed in the same way: {ended[0].reason}"


def _take_up(book: Book) -> None:
    """What an earlier, smaller budget cut off goes on."""
    for record in book.trials():
        if record.cut:
            record.state, record.reason, record.cut = "running", None, False
