"""What the tests of the search have in common."""

from pathlib import Path
from typing import Any

from braidrec.config.load import validate
from braidrec.config.sweep import SweepConfig
from braidrec.search.records import TrialRecord
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
