"""What is trained next: over sessions, budgets and refusals; when no further trial could do better."""

from pathlib import Path

import pytest
from search_cases import Audience, source_of, sweep_of, tasks_of

from braidrec.config.load import ConfigError
from braidrec.search.records import Book, TrialRecord
from braidrec.search.sources import FinalSource, SearchSource, Tasks, same_failure


def failed(number: int, reason: str | None) -> TrialRecord:
    """A trial that failed for this reason; None: that finished."""
    record = TrialRecord(name=f"t{number}", number=number, role="trial", overrides={}, seed=1)
    record.state, record.reason = ("finished", None) if reason is None else ("failed", reason)
    record.score = None if reason else 0.5
    return record


@pytest.mark.parametrize(
    ("reasons", "alike"),
    [
        (["step 1: loss=nan", "step 7: loss=nan", "step 1: loss=1e+30"], False),
        (["step 1: loss=2.5", "step 7: loss=1e+30", "step 1: loss=3"], True),
        (["out of memory", "step 7: loss=nan", "out of memory"], False),
        (["out of memory", None, "out of memory"], False),
    ],
)
def test_failures_are_alike_whatever_their_numbers(reasons: list[str | None], alike: bool) -> None:
    found = same_failure([failed(number, reason) for number, reason in enumerate(reasons)])
    assert (found is not None) == alike
    assert found is None or found == f"the first 3 trials failed in the same way: {reasons[0]}"


def test_three_first_trials_that_fail_alike_count_over_sessions_and_later_ones_do_not(tmp_path: Path) -> None:
    source, book = source_of(tmp_path)
    book.records.extend([failed(1, "loss=nan"), failed(2, "loss=nan")])
    assert source.common_fault() is None
    book.save()
    source, book = source_of(tmp_path)  # another session
    book.records.append(failed(3, "loss=nan"))
    assert source.common_fault() == "the first 3 trials failed in the same way: loss=nan"
    book.records.append(failed(4, "loss=nan"))
    assert source.common_fault() is None, "a sweep that goes on all the same goes on"


def test_finalists_that_fail_alike_do_not_end_the_sweep(tmp_path: Path) -> None:
    _, book, tasks = tasks_of(tmp_path, sweep_of(tmp_path))
    trial = failed(1, None)
    trial.overrides = {"training.optimizer.learning_rate": 0.02}
    finals = FinalSource([trial], [43, 44, 45], book, tasks, Audience())
    while (found := finals.next()) is not None:
        found[0].state, found[0].reason = "failed", "loss=nan"
        book.records.append(found[0])
        finals.ended(found[0])
        assert finals.common_fault() is None
    assert len(book.finals()) == 3


def test_unfinished_trials_come_first_and_ended_ones_not_again(tmp_path: Path) -> None:
    source, book = source_of(tmp_path)
    records = [found[0] for found in iter(source.next, None)]
    assert source.total == 3
    records[0].state, records[0].score = "finished", 0.5
    book.records.extend(records[:2])
    book.save()
    again, _ = source_of(tmp_path)
    assert [found[0].number for found in iter(again.next, None)] == [2, 3]


def searching(folder: Path, now: list[float], **budget: float) -> tuple[SearchSource, Book]:
    sweep = sweep_of(folder, budget=budget)
    runs, book, tasks = tasks_of(folder, sweep)
    return SearchSource(sweep, runs, book, tasks, Audience(), lambda: now[0]), book


def test_wall_time_counts_over_sessions_with_all_that_was_written_down(tmp_path: Path) -> None:
    now = [1000.0]
    source, book = searching(tmp_path, now, seconds=30)
    found = source.next()
    assert found is not None
    book.records.append(found[0])
    now[0] += 20
    source.keep_time()
    book.save()
    now[0] = 5.0  # the next process counts from elsewhere
    source, _ = searching(tmp_path, now, seconds=30)
    now[0] += 9
    assert source.is_used_up() is None
    now[0] += 2
    assert source.is_used_up() == "budget.seconds=30 is used up"


def test_epochs_count_over_sessions_and_a_larger_budget_takes_up_what_the_smaller_one_cut_off(tmp_path: Path) -> None:
    now = [0.0]
    source, book = searching(tmp_path, now, epochs=6)
    first, second = (found[0] for found in (source.next(), source.next()) if found is not None)
    book.records.extend([first, second])
    first.saw(3, 0.5)
    first.state, first.reason = "stopped_early", "less promising than others after 3 epochs"
    second.saw(3, 0.4)
    assert source.is_used_up() == "budget.epochs=6 is used up"
    second.state, second.reason, second.cut = "stopped_early", source.is_used_up(), True
    book.save()
    source, book = searching(tmp_path, now, epochs=6)
    assert [record.state for record in book.trials()] == ["stopped_early"] * 2, "there is no more than before"
    source, book = searching(tmp_path, now, epochs=9)
    assert [record.state for record in book.trials()] == ["stopped_early", "running"]
    again = source.next()
    assert again is not None and again[0].number == 2 and again[0].reason is None


def test_a_suggestion_that_turns_out_invalid_is_a_failed_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = source_of(tmp_path)

    def refuse(self: Tasks, record: TrialRecord) -> None:
        raise ConfigError("model.dim: must be even")

    monkeypatch.setattr(Tasks, "of", refuse)
    found = source.next()
    assert found is not None
    record, task = found
    assert (record.state, record.reason, task) == ("failed", "model.dim: must be even", None)
