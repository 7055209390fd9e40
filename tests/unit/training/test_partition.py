"""Ranges of rows: each row has one owner, and no rank much more of memory or traffic than another."""

import pytest
import torch

from braidrec.training.partition import RowPartition

POWER_LAW = (10_000 / torch.arange(1, 5_001)).long() + 1
"""Hot rows first, as nodes relabelled by degree are."""


def test_cuts_by_hand() -> None:
    """Rows cost ½ (1/4 + degree/16) each: .4375, .1875, .1875, .1875."""
    partition = RowPartition.balanced(torch.tensor([10, 2, 2, 2]), 2)
    assert [partition.rows(rank) for rank in range(2)] == [range(1), range(1, 4)]
    even = RowPartition.balanced(torch.tensor([0, 0, 0, 0, 0, 0]), 3)
    assert [even.rows(rank) for rank in range(3)] == [range(2), range(2, 4), range(4, 6)]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("order", ["hot first", "hot last", "mixed"])
def test_no_rank_has_more_than_twice_its_share(num_ranks: int, order: str) -> None:
    degree = {"hot first": POWER_LAW, "hot last": POWER_LAW.flip(0)}.get(order)
    if degree is None:
        degree = POWER_LAW[torch.randperm(len(POWER_LAW), generator=torch.Generator().manual_seed(0))]
    partition = RowPartition.balanced(degree, num_ranks)
    ranges = [partition.rows(rank) for rank in range(num_ranks)]
    assert [row for held in ranges for row in held] == list(range(len(degree)))
    for held in ranges:
        assert len(held) <= 2 * len(degree) / num_ranks + 1
        edges = int(degree[held.start : held.stop].sum()) - int(degree[held.start : held.stop].max() if held else 0)
        assert edges <= 2 * int(degree.sum()) / num_ranks


@pytest.mark.parametrize("num_ranks", [1, 2, 5])
def test_counts_against_a_loop(num_ranks: int) -> None:
    partition = RowPartition.balanced(POWER_LAW[:100], num_ranks)
    nodes = torch.tensor([0, 1, 2, 40, 41, 77, 98, 99])
    wanted = [sum(node in partition.rows(rank) for node in nodes.tolist()) for rank in range(num_ranks)]
    assert partition.counts(nodes) == wanted
    assert partition.counts(nodes[:0]) == [0] * num_ranks


def test_more_ranks_than_rows() -> None:
    partition = RowPartition.balanced(torch.tensor([3, 1]), 5)
    assert sorted(row for rank in range(5) for row in partition.rows(rank)) == [0, 1]
    assert sum(partition.counts(torch.tensor([0, 1]))) == 2
