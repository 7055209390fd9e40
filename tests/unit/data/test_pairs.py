"""The pairs of splits as sets of items per user, against Python sets."""

from pathlib import Path

import pytest
from tiny_folder import write_tiny

from braidrec.data.folder import DatasetFolder
from braidrec.data.pairs import pairs_of

TRAIN = [(0, 0, 4.0), (0, 3, 2.0), (2, 1, 5.0), (2, 1, 5.0)]
VALID = [(0, 1, 1.0), (1, 2, 3.0)]
TEST = [(2, 3, 2.5), (0, 2, 4.5)]


@pytest.fixture
def folder(tmp_path: Path) -> DatasetFolder:
    splits = {"train": TRAIN, "valid": VALID, "test": TEST}
    return write_tiny(tmp_path / "data", splits, num_users=4, num_items=5, columns=("rating",))


def items_by_user(pairs) -> dict[int, list[int]]:
    return {user: pairs.rows([user])[1].tolist() for user in range(pairs.num_users)}


def test_one_split_with_a_repeated_pair(folder: DatasetFolder) -> None:
    assert items_by_user(pairs_of(folder, ["train"])) == {0: [0, 3], 1: [], 2: [1], 3: []}


def test_splits_together(folder: DatasetFolder) -> None:
    assert items_by_user(pairs_of(folder, ["train", "valid"])) == {0: [0, 1, 3], 1: [2], 2: [1], 3: []}


def test_no_split(folder: DatasetFolder) -> None:
    nothing = pairs_of(folder, [])
    assert (nothing.num_users, nothing.num_items, nothing.counts.sum()) == (4, 5, 0)


def test_ratings_stay_with_their_pairs(folder: DatasetFolder) -> None:
    pairs = pairs_of(folder, ["valid", "test"], with_ratings=True)
    found = {
        (user, item): rating
        for user in range(4)
        for item, rating in zip(pairs.rows([user])[1].tolist(), pairs.row_values([user]).tolist(), strict=True)
    }
    assert found == {(user, item): rating for user, item, rating in VALID + TEST}
    assert pairs_of(folder, ["test"]).values is None
