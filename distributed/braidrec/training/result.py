"""What a training returns, typed. Light to import: the mailbox between worker and driver carries it."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LoopResult:
    """What every rank knows at the end."""

    best_epoch: int
    epochs_run: int
    metrics: dict[str, float]
    """ "valid/recall@20", "test/recall@20", … of the best epoch."""
    example_user: int
    """The most active user; `example_items` are the best (item, score) for it, its train items left out."""
    example_items: list[tuple[int, float]]
    slices: dict[str, dict[str, dict[str, float]]]
    """Of the test split: {slice: {group: {"num_users": …, "recall@20": …}}}."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """What the model recommends to one user, in the data set's own ids: (item id, score), best first."""

    user_id: str
    items: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished run.

    Attributes:
        name: the run's name; `--resume`, evaluate and recommend take it.
        folder: where everything of the run is.
        checkpoint: the best epoch's checkpoint.
        best_epoch, epochs_run: from 1.
        metrics: "valid/recall@20", "test/recall@20", … of the best epoch.
        slices: of the test split, by group of users or items.
        seconds: by phase, of all epochs that this process saw.
        example: recommendations for the most active user.
        mlflow_run_id: None if tracking was off or its server never answered.
        tracking_uri: None if tracking was off.
    """

    name: str
    folder: str
    checkpoint: str
    best_epoch: int
    epochs_run: int
    metrics: dict[str, float]
    slices: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    example: Example | None = None
    mlflow_run_id: str | None = None
    tracking_uri: str | None = None

    def to_plain(self) -> dict[str, Any]:
        """As dicts, lists and scalars, for JSON."""
        return asdict(self)
