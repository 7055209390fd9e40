"""What a training tells its listeners (progress display, MLflow, metrics file): rank 0 emits, the driver consumes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Started:
    """The loop is about to run its first step."""

    first_epoch: int
    epochs: int
    steps_per_epoch: int
    interactions_per_epoch: int
    facts: Mapping[str, str] = field(default_factory=dict)
    """What was chosen and why, e.g. {"propagation": "full: 1.6 M edges a step against 9.2 M sampled"}."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Sent at most a few times a second. `stage` is "train", "valid" or "test"."""

    stage: str
    epoch: int
    done: int
    total: int
    rate: float
    """Interactions (train) or users (validation, test) per second over all workers."""


@dataclass(frozen=True, kw_only=True)
class EpochEnd:
    """One epoch is over.

    Attributes:
        metrics: flat: "train/loss", "valid/recall@20", "seconds/sampling", …
        best: whether it is the best one so far.
        counts: whether it may be chosen; not before the adversary comes, where one is wanted.
        last: whether the training ends with it, for its epochs or its patience are at their end.
    """

    epoch: int
    metrics: Mapping[str, float]
    best: bool = False
    counts: bool = True
    last: bool = False


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something a person should know: a checkpoint that was broken, a worker that was restarted."""

    message: str
    level: str = "info"
    """ "info" or "warning"."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The loop is over; metrics of the best epoch on the test split ("test/recall@20", …)."""

    best_epoch: int
    epochs_run: int
    metrics: Mapping[str, float]


Event = Started | Progress | EpochEnd | Note | Finished


class Listener(Protocol):
    """Consumes events in the order in which they were emitted, in the driver's process."""

    def handle(self, event: Event) -> None: ...
