"""What one process of a node makes for all: nobody waits in a collective for the work of another; failures are told."""

import threading
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from braidrec.training import together
from braidrec.training.together import built_beside


@dataclass
class Meeting:
    """Ranks on threads: sums over all, and what is being made by whom whenever all have come."""

    ranks: int
    barrier: threading.Barrier = field(init=False)
    sums: list[float] = field(default_factory=list)
    given: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.ranks)


@dataclass
class Rank:
    meeting: Meeting
    rank: int
    local_rank: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def world_size(self) -> int:
        return self.meeting.ranks

    def all_reduce(self, values: Tensor) -> Tensor:
        self.meeting.given[self.rank] = float(values)
        self.meeting.barrier.wait(20)
        total = sum(self.meeting.given.values())
        self.meeting.barrier.wait(20)
        if self.rank == 0:
            self.meeting.sums.append(total)
        return values.fill_(total)


def run(make, local_ranks: tuple[int, ...]) -> tuple[Meeting, list[object]]:
    """`built_beside` on as many threads; what each returned or raised."""
    meeting = Meeting(len(local_ranks))
    results: list[object] = [None] * len(local_ranks)

    def work(rank: int, local_rank: int) -> None:
        try:
            results[rank] = built_beside(lambda: make(rank), Rank(meeting, rank, local_rank))
        except ValueError as error:
            results[rank] = error

    threads = [threading.Thread(target=work, args=place) for place in enumerate(local_ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return meeting, results


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "SECONDS_BETWEEN_LOOKS", 0.01)


def test_nobody_is_left_alone_while_the_others_map_what_was_made() -> None:
    """Two nodes of two: the second of each needs as long as the first, and all look after each other meanwhile."""
    order: list[int] = []
    long = threading.Event()

    def make(rank: int) -> int:
        order.append(rank)
        long.wait(0.3)
        return rank * 10

    meeting, results = run(make, (0, 1, 0, 1))
    assert results == [0, 10, 20, 30]
    assert set(order[:2]) == {0, 2} and set(order[2:]) == {1, 3}
    ends = [place for place, total in enumerate(meeting.sums) if total == 0]
    assert len(ends) == 2 and ends[1] == len(meeting.sums) - 1
    assert ends[0] > 3 and ends[1] - ends[0] > 3, "both rounds were looked after many times"


def test_the_others_are_not_kept_by_one_that_failed() -> None:
    def make(rank: int) -> int:
        raise ValueError(f"no space on rank {rank}")

    assert [str(error) for error in run(make, (0, 1, 2))[1]] == [f"no space on rank {rank}" for rank in range(3)]


def test_what_fails_for_one_of_the_others_alone_is_its_own() -> None:
    def make(rank: int) -> int:
        if rank == 1:
            raise ValueError("damaged on rank 1")
        return rank

    _, (first, second, third) = run(make, (0, 1, 2))
    assert (first, third) == (0, 2) and str(second) == "damaged on rank 1"
