"""`braidrec.recommend`: lists in the data set's own ids, against a naive ranking of the model's scores."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from finished_runs import NUM_ITEMS, NUM_USERS, Finished

import braidrec
from braidrec.config.load import ConfigError
from braidrec.data.folder import DatasetFolder
from braidrec.runs.finished import open_run

POLICIES: dict[str, list[str]] = {
    "none": [],
    "train": ["train"],
    "train+valid": ["train", "valid"],
    "all": ["train", "valid", "test"],
}


def lists(file: str) -> dict[str, list[tuple[int, str, float]]]:
    """(rank, item, score) by user, in the file's order."""
    rows: dict[str, list[tuple[int, str, float]]] = {}
    for row in pq.read_table(file).to_pylist():
        rows.setdefault(row["user_id"], []).append((row["rank"], row["item_id"], row["score"]))
    return rows


def scores(run: Finished) -> np.ndarray:
    opened = open_run(run.result.name, run.storage)
    return opened.ranker.score(torch.arange(NUM_USERS)).numpy()


def seen_items(data: DatasetFolder, splits: Iterable[str]) -> dict[int, set[int]]:
    seen: dict[int, set[int]] = {user: set() for user in range(NUM_USERS)}
    for split in splits:
        for user, item in zip(*(column.tolist() for column in data.edges(split)), strict=True):
            seen[user].add(item)
    return seen


def naive(run: Finished, k: int, splits: Iterable[str], candidates: Iterable[int] = range(NUM_ITEMS)):
    data, all_scores = DatasetFolder.open(run.data), scores(run)
    users, items = data.user_ids().to_pylist(), data.item_ids().to_pylist()
    wanted = {}
    for user, seen in seen_items(data, splits).items():
        allowed = sorted((item for item in candidates if item not in seen), key=lambda i: (-all_scores[user, i], i))
        wanted[users[user]] = [
            (rank, items[item], float(all_scores[user, item])) for rank, item in enumerate(allowed[:k], start=1)
        ]
    return {user: rows for user, rows in wanted.items() if rows}


def assert_lists(found, wanted) -> None:
    assert list(found) == list(wanted)
    for user, rows in wanted.items():
        assert [row[:2] for row in found[user]] == [row[:2] for row in rows]
        assert [row[2] for row in found[user]] == pytest.approx([row[2] for row in rows], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("policy", POLICIES)
def test_seen_items_are_left_out_as_asked(lightgcn: Finished, tmp_path: Path, policy: str) -> None:
    done = braidrec.recommend("lightgcn", storage=lightgcn.storage, k=7, exclude=policy, output=str(tmp_path / "out"))
    assert_lists(lists(done.recommendations), naive(lightgcn, 7, POLICIES[policy]))
    assert (done.num_users, done.num_rows) == (NUM_USERS, 7 * NUM_USERS)
    assert done.recommendations == str(tmp_path / "out" / "recommendations.parquet")


def test_ratings_carry_their_mean(ratings: Finished, tmp_path: Path) -> None:
    done = braidrec.recommend("ratings", storage=ratings.storage, k=5, output=str(tmp_path))
    found = lists(done.recommendations)
    assert_lists(found, naive(ratings, 5, POLICIES["all"]))
    assert 1 < np.mean([score for rows in found.values() for _, _, score in rows]) < 6


def test_fewer_candidates_than_k(lightgcn: Finished, tmp_path: Path) -> None:
    """A user gets what there is; one who has seen all candidates gets nothing."""
    data = DatasetFolder.open(lightgcn.data)
    user = int(np.bincount(data.edges("train")[0]).argmax())
    seen = sorted(seen_items(data, ["train"])[user])[:3]
    ids = data.item_ids().to_pylist()
    file = tmp_path / "candidates.txt"
    file.write_text("\n".join(ids[item] for item in [seen[2], seen[0], seen[1], seen[0]]) + "\n\n")
    done = braidrec.recommend(
        "lightgcn", storage=lightgcn.storage, k=10, exclude="train", candidates_file=str(file), output=str(tmp_path)
    )
    found = lists(done.recommendations)
    assert_lists(found, naive(lightgcn, 10, ["train"], seen))
    assert data.user_ids()[user].as_py() not in found
    assert done.num_rows == sum(map(len, found.values())) < 3 * NUM_USERS


def test_no_candidates_and_no_users(lightgcn: Finished, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    for option in ("candidates_file", "users_file"):
        with pytest.raises(ConfigError, match=rf"{option} .*empty.txt: no id in it"):
            braidrec.recommend("lightgcn", storage=lightgcn.storage, **{option: str(tmp_path / "empty.txt")})
    with pytest.raises(ConfigError, match="users: no id in it"):
        braidrec.recommend("lightgcn", storage=lightgcn.storage, users=())


def test_k_beyond_the_catalogue(lightgcn: Finished, tmp_path: Path) -> None:
    done = braidrec.recommend("lightgcn", storage=lightgcn.storage, k=1_000, exclude="none", output=str(tmp_path))
    assert done.num_rows == NUM_USERS * NUM_ITEMS
    assert_lists(lists(done.recommendations), naive(lightgcn, 1_000, []))


def test_given_users_once_each_in_their_order(lightgcn: Finished, tmp_path: Path) -> None:
    ids = DatasetFolder.open(lightgcn.data).user_ids().to_pylist()
    wanted = [ids[7], ids[2], ids[7], ids[30]]
    (tmp_path / "users.txt").write_text("".join(f"  {user}\n" for user in wanted), encoding="utf-8")
    everyone = naive(lightgcn, 3, POLICIES["all"])
    for options in ({"users": wanted}, {"users_file": str(tmp_path / "users.txt")}):
        done = braidrec.recommend("lightgcn", storage=lightgcn.storage, k=3, output=str(tmp_path), **options)
        assert done.num_users == 3
        assert_lists(lists(done.recommendations), {user: everyone[user] for user in dict.fromkeys(wanted)})


@pytest.mark.parametrize("name", ["lightgcn", "ratings"])
def test_vectors_give_the_scores(request: pytest.FixtureRequest, name: str, tmp_path: Path) -> None:
    """⟨user, item⟩ + offset, the offset standing in the files' metadata."""
    run = request.getfixturevalue(name)
    done = braidrec.recommend(name, storage=run.storage, k=4, exclude="none", vectors=True, output=str(tmp_path))
    tables = {side: pq.read_table(file) for side, file in (("user", done.user_vectors), ("item", done.item_vectors))}
    vectors = {
        side: dict(zip(table[f"{side}_id"].to_pylist(), table["vector"].to_pylist(), strict=True))
        for side, table in tables.items()
    }
    offsets = {float(table.schema.metadata[b"offset"]) for table in tables.values()}
    (offset,) = offsets
    assert (offset != 0) == (name == "ratings")
    assert len(vectors["user"]) == NUM_USERS and len(vectors["item"]) == NUM_ITEMS
    for user, rows in lists(done.recommendations).items():
        for _, item, score in rows:
            product = np.dot(vectors["user"][user], vectors["item"][item])
            assert product + offset == pytest.approx(score, rel=1e-5, abs=1e-6)
    assert tables["user"].schema.metadata[b"run"].decode() == run.result.folder


def test_no_vectors_unless_asked(lightgcn: Finished, tmp_path: Path) -> None:
    done = braidrec.recommend("lightgcn", storage=lightgcn.storage, output=str(tmp_path))
    assert done.user_vectors is None and done.item_vectors is None
    assert [path.name for path in tmp_path.iterdir()] == ["recommendations.parquet"]


def test_unknown_ids_are_refused_with_the_nearest(lightgcn: Finished, tmp_path: Path) -> None:
    def refuse(message: str, **options: object) -> None:
        with pytest.raises(ConfigError, match=message):
            braidrec.recommend("lightgcn", storage=lightgcn.storage, output=str(tmp_path / "out"), **options)

    refuse(r"users: 'usr-07' \(and 1 more\) is not an id of this data set, such as 'user-00'. Did you mean 'user-07'\?",
           users=("user-01", "usr-07", "nobody at all"))  # fmt: skip
    candidates = tmp_path / "items.txt"
    candidates.write_text("item-01\nitm-02\n")
    refuse(r"candidates_file .*items.txt: 'itm-02' .* Did you mean 'item-02'\?", candidates_file=str(candidates))
    refuse(r"none.txt: cannot be read .*one id a line", users_file=str(tmp_path / "none.txt"))
    (tmp_path / "latin.txt").write_bytes(b"us\xe9r\n")
    refuse(r"latin.txt: cannot be read .*UTF-8", users_file=str(tmp_path / "latin.txt"))
    refuse("users and users_file: give one of them", users=("user-01",), users_file=str(candidates))
    refuse("exclude", exclude="everything")
    refuse("kk", kk=3)
    assert not (tmp_path / "out").exists()


def test_the_example_of_the_result_is_what_recommend_says(lightgcn: Finished, tmp_path: Path) -> None:
    example = lightgcn.result.example
    assert example is not None
    done = braidrec.recommend(
        "lightgcn", storage=lightgcn.storage, k=5, exclude="train", users=(example.user_id,), output=str(tmp_path)
    )
    (rows,) = lists(done.recommendations).values()
    assert [(item, score) for _, item, score in rows] == list(example.items)
    degrees = np.bincount(DatasetFolder.open(lightgcn.data).edges("train")[0])
    assert example.user_id == DatasetFolder.open(lightgcn.data).user_ids()[int(degrees.argmax())].as_py()
