"""What a sweep knows of its trials, kept in `trials.json` after every beginning and end of one."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from braidrec.data.storage import Location
from braidrec.errors import RunError
from braidrec.search.space import Point

State = Literal["running", "finished", "stopped_early", "failed"]
Role = Literal["trial", "final"]


@dataclass(kw_only=True)
class TrialRecord:
    """A trial of the search, or a run of a finalist.

    Attributes:
        name: of its training run; unique in the sweep.
        number: of the trial, from 1; of a final run the trial that it repeats.
        role: whether it is searched with, or tested.
        overrides: dotted key → value, over the base.
        seed: of the training.
        state: running also if its process, or the driver, is gone and it can be continued.
        reason: why it failed or was stopped.
        score: best value of the objective on the validation split.
        epochs: trained so far.
        seconds: from its start to its end, over all sessions.
        curve: (epoch, best score so far), as the search saw them.
        mlflow_run_id: None while it is not known, or if tracking is off.
        metrics: of a final run, all that it was tested on; empty for a trial.
        cut: stopped early by the end of the budget or of the sweep, not for want of promise: with a larger budget it
            goes on.
    """

    name: str
    number: int
    role: Role
    overrides: Point
    seed: int
    state: State = "running"
    reason: str | None = None
    score: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    curve: list[tuple[int, float]] = field(default_factory=list)
    mlflow_run_id: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    cut: bool = False

    def saw(self, epoch: int, score: float) -> None:
        """The best score after an epoch; one that is trained again, after a death, replaces what was known of it."""
        self.curve = [(known, value) for known, value in self.curve if known < epoch] + [(epoch, score)]
        self.epochs, self.score = max(self.epochs, epoch), score


class Book:
    """All records of a sweep and the wall time of its search, on disk.

    Args:
        folder: of the sweep.
    Raises:
        RunError: what is there cannot be read.
    """

    def __init__(self, folder: Location) -> None:
        self._file, self._clock = folder.child("trials.json"), folder.child("seconds.json")
        self.records: list[TrialRecord] = []
        self.seconds = 0.0
        if not self._file.is_file():
            return
        try:
            self.records = [_record(plain) for plain in json.loads(self._file.read_bytes())]
            if self._clock.is_file():
                self.seconds = float(json.loads(self._clock.read_bytes())["search"])
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{self._file.uri} cannot be read ({error}); without it the sweep starts anew") from None

    def save(self) -> None:
        """Write everything; complete or not at all, whoever is killed meanwhile."""
        self._file.write_bytes(json.dumps([asdict(record) for record in self.records], indent=1).encode())
        self._clock.write_bytes(json.dumps({"search": self.seconds}).encode())

    def trials(self) -> list[TrialRecord]:
        """Those of the search, in order of their numbers."""
        return sorted((record for record in self.records if record.role == "trial"), key=lambda each: each.number)

    def finals(self) -> list[TrialRecord]:
        """Those of the finalists."""
        return [record for record in self.records if record.role == "final"]

    def ranked(self, sign: int) -> list[TrialRecord]:
        """Finished trials, best first, the earlier of equal ones first; `sign` is 1 where a high score is good."""
        finished = [record for record in self.trials() if record.state == "finished" and record.score is not None]
        return sorted(finished, key=lambda record: (-sign * float(record.score or 0.0), record.number))

    def chosen(self, sign: int) -> list[TrialRecord]:
        """Of which finalists are taken: `ranked`; where no trial finished, those that were stopped, by their score."""
        stopped = [each for each in self.trials() if each.state == "stopped_early" and each.score is not None]
        by_score = sorted(stopped, key=lambda record: (-sign * float(record.score or 0.0), record.number))
        return self.ranked(sign) or by_score

    def find(self, name: str) -> TrialRecord | None:
        """The record of a run."""
        return next((record for record in self.records if record.name == name), None)

    def __iter__(self) -> Iterator[TrialRecord]:
        return iter(self.records)


def _record(plain: dict[str, Any]) -> TrialRecord:
    return TrialRecord(**{**plain, "curve": [(int(epoch), float(score)) for epoch, score in plain["curve"]]})
