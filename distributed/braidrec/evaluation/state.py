"""What an evaluation of some users amounts to, and the result of all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluationState:
    """Sums over users, and their own values where these are kept. All states of one evaluator have one layout."""

    sums: Mapping[str, Floats]
    """May be added: the total over any partition of the users is the same to the last bit."""
    rows: Floats
    """[users, columns] the values of each user; no rows unless they are kept."""

    def to_arrays(self) -> dict[str, Floats]:
        """{"sums": [length], "rows": [users, columns]}, C-contiguous float64, for exchange between processes.

        "sums" has one length on all processes: an all-reduce (sum) of it is enough. "rows" differ in length.
        """
        flat = [self.sums[key].ravel() for key in sorted(self.sums)]
        return {"sums": np.concatenate(flat), "rows": np.ascontiguousarray(self.rows)}

    def from_arrays(self, arrays: Mapping[str, Floats]) -> "EvaluationState":
        """The state that such arrays of another process stand for, in the layout of this one.

        Raises:
            ValueError: the arrays are of another layout, as from an evaluator with other settings.
        """
        length = sum(value.size for value in self.sums.values())
        if arrays["sums"].shape != (length,) or arrays["rows"].shape[1:] != self.rows.shape[1:]:
            raise ValueError(
                f"sums {arrays['sums'].shape} and rows {arrays['rows'].shape} do not fit this evaluation: wanted "
                f"({length},) and (users, {self.rows.shape[1]}); evaluate with the same settings on all processes"
            )
        sums, start = {}, 0
        for key in sorted(self.sums):
            shape, size = self.sums[key].shape, self.sums[key].size
            sums[key] = arrays["sums"][start : start + size].reshape(shape)
            start += size
        return EvaluationState(sums=sums, rows=arrays["rows"])

    @staticmethod
    def merge(states: Sequence["EvaluationState"]) -> "EvaluationState":
        """The state of all users, from those of disjoint sets of users (at least one)."""
        sums = {key: np.sum([state.sums[key] for state in states], axis=0) for key in states[0].sums}
        return EvaluationState(sums=sums, rows=np.concatenate([state.rows for state in states]))


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """The metrics of all evaluated users."""

    metrics: dict[str, float]
    """Flat: {"recall@20": …, "ndcg@20": …, …}; NaN where a metric is undefined for every user."""
    num_users: int
    """Users with at least one held-out item."""
    num_users_without_train: int
    """How many of them have no train interaction."""
    num_held_out: int
    """Pairs held out."""
    num_held_out_masked: int
    """Held-out pairs left out because they are masked too, and so could never be recommended."""
    slices: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """{slice: {group: {"num_users": …, "recall@20": …}}}"""
