"""Which candidate is best, by validation alone, and what its tests say."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from braidrec.search.compare_result import Figure
from braidrec.search.records import Book, TrialRecord
from braidrec.search.space import Point


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A finalist.

    Attributes:
        number: of the trial that it was.
        overrides: dotted key → value, over the base.
        seeds: of the runs that count, all of which finished.
        score: mean of the objective on validation, over the runs; of the trial itself if there are none.
        spread: their standard deviation; None for fewer than two.
        tests: metric → (mean, standard deviation or None) of the runs, on the test split.
    """

    number: int
    overrides: Point
    seeds: tuple[int, ...]
    score: float
    spread: float | None
    tests: dict[str, tuple[float, float | None]]

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)


def candidates_of(book: Book, sign: int, wanted: int) -> list[Candidate]:
    """The finalists, best mean validation score first; without finals, the best trials.

    A finalist of which a run failed comes after all whose runs finished: its mean is over other seeds than theirs.

    Args:
        book: of the sweep.
        sign: 1 where a high score is good.
        wanted: number of trials to look at where there are no finals.
    """
    numbers = list(dict.fromkeys(record.number for record in book.finals()))
    if not numbers:
        return [_alone(record) for record in book.chosen(sign)[: max(1, wanted)]]
    groups = [[record for record in book.finals() if record.number == number] for number in numbers]
    complete = {group[0].number: all(record.state == "finished" for record in group) for group in groups}
    found = [_candidate(group) for group in groups if any(record.state == "finished" for record in group)]
    return sorted(found, key=lambda each: (not complete[each.number], -sign * each.score, each.number))


def _alone(record: TrialRecord) -> Candidate:
    assert record.score is not None
    return Candidate(
        number=record.number, overrides=record.overrides, seeds=(), score=record.score, spread=None, tests={}
    )


def _candidate(group: Sequence[TrialRecord]) -> Candidate:
    finished = [record for record in group if record.state == "finished"]
    score = Figure(values=tuple(float(record.score or 0.0) for record in finished))
    names = [name for name in finished[0].metrics if name.startswith("test/")]
    tests = {name: Figure(values=tuple(record.metrics[name] for record in finished)) for name in names}
    return Candidate(
        number=group[0].number,
        overrides=group[0].overrides,
        seeds=tuple(record.seed for record in finished),
        score=score.mean,
        spread=score.spread,
        tests={name: (figure.mean, figure.spread) for name, figure in tests.items()},
    )
