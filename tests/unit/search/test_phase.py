"""What a phase writes down: states, reasons, budgets, and when a sweep is hopeless. Without Ray."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from search_cases import ended

from braidrec.config.run import WorkersConfig
from braidrec.data.storage import Location
from braidrec.errors import RunError
from braidrec.search.phase import Limits, Phase, _Scheduler, _Watcher
from braidrec.search.process import Task
from braidrec.search.records import Book, TrialRecord
from braidrec.search.resources import Share
from braidrec.search.winner import candidates_of

LIMITS = Limits(share=Share(concurrency=1, resources={"CPU": 1.0}, workers=WorkersConfig(num=0)), worker_failures=2)


def task(name: str) -> Task:
    return Task(name=name, config={}, metric="recall@20", sign=1, tags={}, tested=False)


def validation(epoch: int, score: float, *, last: bool = False) -> dict[str, Any]:
    return {"epoch": epoch, "score": score, "last": last}


class Source:
    """Five trials, and a budget that is used up when it says so."""

    def __init__(self) -> None:
        self.given = 0
        self.used_up: str | None = None
        self.over: list[str] = []
        self.fault: str | None = None
        self.broken: Exception | None = None
        self.task_of: Callable[[str], Task | None] = task
        self.times_kept = 0

    def next(self) -> tuple[TrialRecord, Task | None] | None:
        self.given += 1
        if self.given > 5:
            return None
        name = f"t{self.given}"
        record = TrialRecord(name=name, number=self.given, role="trial", overrides={}, seed=1)
        found = self.task_of(name)
        if found is None:
            record.state, record.reason = "failed", "refused"
        return record, found

    def saw(self, record: TrialRecord) -> None: ...

    def ended(self, record: TrialRecord) -> None:
        if self.broken is not None:
            raise self.broken
        self.over.append(record.name)

    def is_used_up(self) -> str | None:
        return self.used_up

    def common_fault(self) -> str | None:
        return self.fault

    def keep_time(self) -> None:
        self.times_kept += 1


class Trial:
    """As much of Tune's trial as a scheduler asks for."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
        self.last_result: dict[str, Any] = {}


class Stopper(TrialScheduler):  # type: ignore[misc]
    """A judge that wants the fourth epoch to be the last one, and is hurt when it is asked again."""

    def __init__(self) -> None:
        self.asked = 0

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if result["epoch"] < 4:
            return str(TrialScheduler.CONTINUE)
        self.asked += 1
        assert self.asked == 1
        return str(TrialScheduler.STOP)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def phase(tmp_path: Path, source: Source) -> Phase:
    return Phase(
        source, Book(Location.of(tmp_path)), None, LIMITS, Location.of(tmp_path / "tune"), iter(range(100)).__next__
    )


def test_states_and_reasons(phase: Phase, source: Source, tmp_path: Path) -> None:
    for name in "abcd":
        assert phase.next_task(name) is not None
    phase.saw("a", {"epoch": 1, "score": 0.1})
    phase.saw("a", {"epoch": 2, "score": 0.3})
    phase.ended("a", {"epoch": 3, "score": 0.3, "finished": True, "done": True})
    phase.saw("b", {"epoch": 4, "score": 0.2})
    phase.ended("b", {"epoch": 4, "score": 0.2})
    phase.ended("c", {"failure": "loss=nan", "done": True})
    phase.ended("d", {}, death="its process died 3 times")
    found = {record.name: record for record in Book(Location.of(tmp_path))}
    assert [found[f"t{n}"].state for n in (1, 2, 3, 4)] == ["finished", "stopped_early", "failed", "failed"]
    assert (found["t1"].score, found["t1"].epochs, found["t1"].curve) == (0.3, 3, [(1, 0.1), (2, 0.3)])
    assert found["t2"].reason == "less promising than others after 4 epochs"
    assert (found["t3"].reason, found["t4"].reason) == ("loss=nan", "its process died 3 times")
    assert found["t1"].seconds > 0 and source.over == ["t1", "t2", "t3", "t4"]


def test_a_budget_that_is_used_up_ends_what_runs_and_begins_nothing(phase: Phase, source: Source) -> None:
    scheduler = _Scheduler(phase)
    phase.next_task("a")
    assert scheduler.on_trial_result(None, Trial("a"), validation(1, 0.1)) == TrialScheduler.CONTINUE
    source.used_up = "budget.epochs=2 is used up"
    assert scheduler.on_trial_result(None, Trial("a"), validation(2, 0.2)) == TrialScheduler.STOP
    assert phase.next_task("b") is None
    phase.ended("a", {"epoch": 2, "score": 0.2})
    assert phase.book.records[0].reason == "budget.epochs=2 is used up"


def test_a_common_fault_ends_what_runs_and_the_phase(phase: Phase, source: Source) -> None:
    phase.next_task("a")
    phase.next_task("b")
    source.fault = "the first 3 trials failed in the same way: loss=nan"
    phase.ended("a", {"failure": "loss=nan"})
    assert phase.hopeless == source.fault and phase.next_task("c") is None
    assert _Scheduler(phase).on_trial_result(None, Trial("b"), validation(1, 0.1)) == TrialScheduler.STOP


def test_at_its_last_epoch_a_trial_ends_by_itself_whatever_budget_or_judge_say(phase: Phase, source: Source) -> None:
    """Stopped there it would have no final score of its own and could not become a finalist."""
    judge = Stopper()
    phase.judge = judge
    scheduler = _Scheduler(phase)
    phase.next_task("a")
    source.used_up = "budget.epochs=4 is used up"
    decisions = [
        scheduler.on_trial_result(None, Trial("a"), validation(epoch, epoch / 10, last=epoch == 4))
        for epoch in range(1, 5)
    ]
    assert decisions == [TrialScheduler.STOP] * 3 + [TrialScheduler.CONTINUE]
    # Its process dies there and hands the validation over again; a judge that has said STOP is not asked twice.
    assert scheduler.on_trial_result(None, Trial("a"), validation(4, 0.4, last=True)) == TrialScheduler.CONTINUE
    assert judge.asked == 1
    phase.ended("a", {"epoch": 4, "score": 0.4, "finished": True})
    assert phase.book.ranked(1) == phase.book.records and not phase.book.records[0].cut


def test_what_the_budget_cut_off_is_marked_and_what_the_judge_stopped_is_not(
    phase: Phase, source: Source, tmp_path: Path
) -> None:
    for name in "ab":
        phase.next_task(name)
        phase.saw(name, {"epoch": 1, "score": 0.1})
    phase.ended("a", {"epoch": 1, "score": 0.1})
    source.used_up = "budget.seconds=1 is used up"
    phase.ended("b", {"epoch": 1, "score": 0.1})
    assert [record.cut for record in Book(Location.of(tmp_path))] == [False, True]


def test_a_phase_with_nothing_to_do_does_not_ask_tune(
    phase: Phase, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would read back, by unpickling, what an earlier session has left in its folder."""
    tuned: list[str] = []
    monkeypatch.setattr(Phase, "_tune", lambda self: tuned.append(str(self.next_task("a"))))
    source.task_of = lambda name: None  # five that are refused, and no more
    phase.run()
    assert tuned == [] and source.over == ["t1", "t2", "t3", "t4", "t5"]
    source.given, source.task_of = 0, task
    phase.run()
    assert "'t1'" in tuned[0], "the training that was looked for first is not lost"


def test_an_error_in_writing_down_an_end_is_the_phases_own(phase: Phase, source: Source) -> None:
    """Tune swallows what its callbacks raise."""
    watcher = _Watcher(phase, 0)
    trial = Trial("a")
    trial.last_result = {"finished": True, "epoch": 1, "score": 0.1}
    phase.next_task("a")
    source.broken = OSError("disk full")
    with pytest.raises(OSError, match="disk full"):
        watcher.on_trial_complete(0, [], trial)
    assert phase.fault is source.broken and phase.next_task("b") is None
    watcher.on_trial_error(0, [], trial)  # Tune's own next step: nothing more to say


def test_a_training_that_is_refused_is_recorded_as_failed_and_the_next_one_begins(
    phase: Phase, source: Source, tmp_path: Path
) -> None:
    source.task_of = lambda name: None if name == "t1" else task(name)
    found = phase.next_task("a")
    assert found is not None and found["name"] == "t2"
    first, second = Book(Location.of(tmp_path)).records
    assert (first.state, first.reason, second.state) == ("failed", "refused", "running")
    assert source.over == ["t1"]


def test_how_far_running_trainings_have_come_survives_a_killed_driver(
    phase: Phase, source: Source, tmp_path: Path
) -> None:
    phase.next_task("a")
    for epoch in range(1, 9):  # every look at the clock takes a second
        phase.saw("a", {"epoch": epoch, "score": 0.1})
    (record,) = Book(Location.of(tmp_path)).records
    assert 1 < record.epochs < 8 and record.seconds > 5
    before = source.times_kept
    phase.leave_off()
    (record,) = Book(Location.of(tmp_path)).records
    assert record.epochs == 8 and record.seconds > 15 and source.times_kept == before + 1


def test_records_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "trials.json").write_text("[{]")
    with pytest.raises(RunError, match=r"trials\.json cannot be read"):
        Book(Location.of(tmp_path))


def test_an_epoch_that_is_trained_again_replaces_what_was_seen_of_it() -> None:
    record = ended(1, {}, 0.5)
    record.saw(9, 0.4)
    assert record.curve[-2:] == [(8, 0.4), (9, 0.4)] and record.epochs == 10


def final(number: int, seed: int, score: float | None, test: float = 0.0) -> TrialRecord:
    return TrialRecord(
        name=f"f{number}-{seed}",
        number=number,
        role="final",
        overrides={"n": number},
        seed=seed,
        state="failed" if score is None else "finished",
        score=score,
        metrics={} if score is None else {"valid/recall@20": score, "test/recall@20": test},
    )


def test_the_winner_is_chosen_by_its_mean_validation_over_seeds_whatever_its_test(tmp_path: Path) -> None:
    book = Book(Location.of(tmp_path))
    book.records = [
        ended(1, {"n": 1}, 0.9), ended(2, {"n": 2}, 0.8),
        final(1, 43, 0.5, 0.9), final(1, 44, 0.7, 0.8), final(2, 43, 0.6, 0.1), final(2, 44, 0.66, 0.3),
        final(3, 43, 0.99, 0.99), final(3, 44, None),
    ]  # fmt: skip
    first, second, third = candidates_of(book, 1, 3)
    assert (first.number, second.number, third.number) == (2, 1, 3)
    assert first.score == pytest.approx(0.63) and first.spread == pytest.approx(0.06 / 2**0.5)
    mean, spread = first.tests["test/recall@20"]
    assert mean == pytest.approx(0.2) and spread == pytest.approx(0.2 / 2**0.5)
    assert third.seeds == (43,) and third.spread is None
    assert candidates_of(book, -1, 3)[0].number == 1


def test_without_finals_the_best_trial_wins_and_the_earlier_of_equal_ones(tmp_path: Path) -> None:
    book = Book(Location.of(tmp_path))
    book.records = [ended(1, {}, 0.4), ended(2, {}, 0.6), ended(3, {}, 0.6), ended(4, {}, 0.9, "stopped_early")]
    assert [candidate.number for candidate in candidates_of(book, 1, 2)] == [2, 3]
    assert [candidate.number for candidate in candidates_of(book, -1, 0)] == [1]
