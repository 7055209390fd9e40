"""What the fixtures of this folder hand out."""

from dataclasses import dataclass

from braidrec.training.result import TrainResult

NUM_USERS, NUM_ITEMS = 60, 45


@dataclass(frozen=True)
class Finished:
    """A finished run and its data."""

    result: TrainResult
    storage: str
    data: str
