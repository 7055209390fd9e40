"""What the tests of the search have in common."""

from pathlib import Path
from typing import Any

from braidrec.config.load import validate
from braidrec.config.run import WorkersConfig
from braidrec.config.sweep import SweepConfig
from braidrec.data.storage import Location
from braidrec.search.folder import SweepFolder
from braidrec.search.records import Book, TrialRecord
from braidrec.search.resources import Share
from braidrec.search.runs import Runs
from braidrec.search.sources import SearchSource, Tasks
from braidrec.search.space import Space


def sweep_config(space: dict[str, Any], **keys: Any) -> SweepConfig:
    """A sweep over `space`, on a grid unless something else is asked for."""
    return validate(SweepConfig, {"algorithm": {"kind": "grid"}, **keys, "space": space}, "test")


def space_of(space: dict[str, Any]) -> Space:
    return Space(sweep_config(space, algorithm={"kind": "random"}, budget={"trials": 1}).space)


def planted_run(folder: Path, **keys: Any) -> dict[str, Any]:
    """A base run on a small generated data set."""
    return {
        "storage": str(folder / "runs"),
        "data": {"path": str(folder / "data"), "planted": {"users": 60, "items": 40, "interactions": 600}},
        "tracking": {"enabled": False},
        **keys,
    }


SHARE = Share(concurrency=1, resources={"CPU": 1.0}, workers=WorkersConfig(num=0, threads=1))


class Audience:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def began(self, record: TrialRecord) -> None:
        self.told.append(("began", record.name))

    def saw(self, record: TrialRecord) -> None:
        self.told.append(("saw", record.name))

    def ended(self, record: TrialRecord) -> None:
        self.told.append(("ended", record.name))


def sweep_of(folder: Path, **keys: Any) -> SweepConfig:
    training = {"epochs": 4, "batch_size": 256}
    run = planted_run(folder, training=training, model={"dim": 8}, evaluation={"watch_test": True})
    space = {"training.optimizer.learning_rate": {"choice": [0.02, 0.01, 1e30]}}
    return sweep_config(space, run=run, **keys)


def tasks_of(folder: Path, sweep: SweepConfig) -> tuple[Runs, Book, Tasks]:
    runs = Runs.of(sweep)
    runs.check(sweep)
    place = SweepFolder(Location.of(folder / "sweep"))
    return runs, Book(place.location), Tasks(place, runs, SHARE, None, lambda record: {"of": record.name})


def source_of(folder: Path) -> tuple[SearchSource, Book]:
    sweep = sweep_of(folder)
    runs, book, tasks = tasks_of(folder, sweep)
    return SearchSource(sweep, runs, book, tasks, Audience()), book


def keys_in(value: Any) -> set[str]:
    """Every key, at any depth."""
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in keys_in(inner)}
    return {key for inner in value for key in keys_in(inner)} if isinstance(value, list | tuple) else set()


def ended(number: int, overrides: dict[str, Any], score: float | None, state: str = "finished") -> TrialRecord:
    """A trial that has ended after ten epochs, on which its score grew evenly."""
    curve = [] if score is None else [(epoch, score * epoch / 10) for epoch in range(1, 11)]
    return TrialRecord(
        name=f"trial-{number}",
        number=number,
        role="trial",
        overrides=overrides,
        seed=42,
        state=state,  # type: ignore[arg-type]
        score=score,
        epochs=10,
        curve=curve,
    )
