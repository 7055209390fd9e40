"""What a phase writes down: states, reasons, budgets, and when a sweep is hopeless. Without Ray."""

from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from search_cases import ended

from braidrec.config.run import WorkersConfig
from braidrec.data.storage import Location
from braidrec.errors import RunError
from braidrec.search.phase import Limits, Phase, _Scheduler
from braidrec.search.process import Task
from braidrec.search.records import Book, TrialRecord
from braidrec.search.resources import Share
from braidrec.search.winner import candidates_of

LIMITS = Limits(share=Share(concurrency=1, resources={"CPU": 1.0}, workers=WorkersConfig(num=0)), worker_failures=2)


class Source:
    """Five trials, and a budget that is used up when it says so."""

    def __init__(self) -> None:
        self.given = 0
        self.used_up: str | None = None
        self.over: list[str] = []

    def next(self) -> tuple[TrialRecord, Task] | None:
        self.given += 1
        if self.given > 5:
            return None
        name = f"t{self.given}"
        record = TrialRecord(name=name, number=self.given, role="trial", overrides={}, seed=1)
        return record, Task(name=name, config={}, metric="recall@20", sign=1, tags={}, tested=False)

    def saw(self, record: TrialRecord) -> None: ...

    def ended(self, record: TrialRecord) -> None:
        self.over.append(record.name)

    def is_used_up(self) -> str | None:
        return self.used_up


class Trial:
    """As much of Tune's trial as a scheduler asks for."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


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
    assert scheduler.on_trial_result(None, Trial("a"), {"epoch": 1, "score": 0.1}) == TrialScheduler.CONTINUE
    source.used_up = "budget.epochs=2 is used up"
    assert scheduler.on_trial_result(None, Trial("a"), {"epoch": 2, "score": 0.2}) == TrialScheduler.STOP
    assert phase.next_task("b") is None
    phase.ended("a", {"epoch": 2, "score": 0.2})
    assert phase.book.records[0].reason == "budget.epochs=2 is used up"


@pytest.mark.parametrize(
    ("reasons", "hopeless"),
    [
        (["step 1: loss=nan", "step 7: loss=nan", "step 1: loss=nan"], True),
        (["out of memory", "step 7: loss=nan", "out of memory"], False),
        (["out of memory", None, "out of memory", "out of memory"], False),
    ],
)
def test_three_trials_that_fail_alike_end_the_sweep(phase: Phase, reasons: list[str | None], hopeless: bool) -> None:
    for number, reason in enumerate(reasons):
        phase.next_task(str(number))
        outcome: dict[str, Any] = {"failure": reason} if reason else {"finished": True, "epoch": 1, "score": 0.1}
        phase.ended(str(number), outcome)
    assert (phase.hopeless is not None) == hopeless
    assert (phase.next_task("next") is None) == hopeless


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
