"""Recommendations to users whom training did not see, against a loop over users, items and columns."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from finished_runs import NUM_ITEMS, Finished

import braidrec
from braidrec.config.load import ConfigError
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.evaluation.ranker import VectorRanker
from braidrec.runs.finished import open_run
from braidrec.runs.new_users import new_user_ranker, read_new_users

HISTORIES: Mapping[str, Sequence[str]] = {
    "zoe": ("item-03", "item-07", "item-03", "no-such-item"),
    "007": ("item-00",),
    "nobody": ("no-such-item", "nor-this"),
    "ann": tuple(f"item-{index:02d}" for index in range(0, NUM_ITEMS, 2)),
}
KNOWN = {
    user: sorted({int(item[5:]) for item in items if item.startswith("item-")}) for user, items in HISTORIES.items()
}


def csv_file(folder: Path, rows: Sequence[str] | None = None) -> str:
    lines = [f"{user},{item}" for user, items in HISTORIES.items() for item in items] if rows is None else rows
    file = folder / "new.csv"
    file.write_text("\n".join(["user_id,item_id", *lines]) + "\n")
    return str(file)


def lists(file: str) -> dict[str, list[tuple[str, float]]]:
    rows: dict[str, list[tuple[str, float]]] = {}
    for row in pq.read_table(file).to_pylist():
        rows.setdefault(row["user_id"], []).append((row["item_id"], row["score"]))
    return rows


@pytest.mark.parametrize("exclude", ["all", "none"])
@pytest.mark.parametrize("name", ["lightgcn", "fused", "attending"])
def test_the_mean_of_their_items(request: pytest.FixtureRequest, name: str, exclude: str, tmp_path: Path) -> None:
    run: Finished = request.getfixturevalue(name)
    done = braidrec.recommend(
        name, storage=run.storage, new_users=csv_file(tmp_path), k=6, exclude=exclude, output=str(tmp_path / "out")
    )
    items = open_run(name, run.storage).ranker.item_vectors().numpy()
    found = lists(done.recommendations)
    assert list(found) == ["zoe", "007", "ann"]
    assert (done.num_users, done.num_rows, done.unknown_items, done.users_without_items) == (3, 18, 2, 1)
    for user, rows in found.items():
        mean = sum(items[item] for item in KNOWN[user]) / len(KNOWN[user])
        scores = [float(np.dot(mean, items[item])) for item in range(NUM_ITEMS)]
        allowed = [item for item in range(NUM_ITEMS) if exclude == "none" or item not in KNOWN[user]]
        best = sorted(allowed, key=lambda item: -scores[item])[:6]
        assert [item for item, _ in rows] == [f"item-{item:02d}" for item in best]
        assert [score for _, score in rows] == pytest.approx([scores[item] for item in best], rel=1e-4, abs=1e-6)


def test_biases_are_those_of_an_average_user(ratings: Finished, tmp_path: Path) -> None:
    """A new user's rating is mean + average user bias + item bias + ⟨mean of embeddings, embedding⟩."""
    done = braidrec.recommend(
        "ratings", storage=ratings.storage, new_users=csv_file(tmp_path), k=NUM_ITEMS, exclude="none",
        output=str(tmp_path / "out"),
    )  # fmt: skip
    ranker = open_run("ratings", ratings.storage).ranker
    users, items = ranker.user_vectors(torch.arange(ranker.num_users)).numpy(), ranker.item_vectors().numpy()
    assert (users[:, -1] == 1).all() and (items[:, -2] == 1).all()
    average = users[:, -2].mean()
    for user, rows in lists(done.recommendations).items():
        taste = items[KNOWN[user], :-2].mean(0)
        for item, score in rows:
            vector = items[int(item[5:])]
            assert score == pytest.approx(ranker.offset + average + vector[-1] + taste @ vector[:-2], rel=1e-4)


def test_ranking_by_cosine(tmp_path: Path) -> None:
    unit = torch.nn.functional.normalize(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    trained = VectorRanker(unit[:2], unit[2:])
    new = read_new_users(csv_file(tmp_path, ["a,i0", "a,i1", "b,i3"]), pa.array(["i0", "i1", "i2", "i3"]))
    vectors = new_user_ranker(trained, new, cosine=True).user_vectors(torch.arange(2))
    wanted = (unit[2] + unit[3]) / (unit[2] + unit[3]).norm()
    torch.testing.assert_close(vectors, torch.stack([wanted, unit[5]]))


def test_parquet_and_candidates_and_vectors(lightgcn: Finished, tmp_path: Path) -> None:
    """Numeric ids of a Parquet file are read as their digits; other options apply as to known users."""
    pq.write_table(
        pa.table({"item_id": ["item-01", "item-02", "item-02"], "user_id": [5, 5, 12]}), tmp_path / "n.parquet"
    )
    (tmp_path / "some.txt").write_text("item-02\nitem-09\nitem-30\n")
    done = braidrec.recommend(
        "lightgcn", storage=lightgcn.storage, new_users=str(tmp_path / "n.parquet"), vectors=True,
        candidates_file=str(tmp_path / "some.txt"), output=str(tmp_path / "out"),
    )  # fmt: skip
    found = lists(done.recommendations)
    assert {user: {item for item, _ in rows} for user, rows in found.items()} == {
        "5": {"item-09", "item-30"}, "12": {"item-09", "item-30"},
    }  # fmt: skip
    assert (done.unknown_items, done.users_without_items) == (0, 0)
    assert done.user_vectors is not None
    vectors = pq.read_table(done.user_vectors)
    assert vectors["user_id"].to_pylist() == ["5", "12"]
    items = open_run("lightgcn", lightgcn.storage).ranker.item_vectors().numpy()
    assert vectors["vector"][1].as_py() == pytest.approx(items[2].tolist())


def test_their_histories_find_what_known_users_are_given(lightgcn: Finished, tmp_path: Path) -> None:
    """The train items of known users, as if they were new: lists mostly agree with the trained users'."""
    data = DatasetFolder.open(lightgcn.data)
    users, items = data.edges("train")
    names = data.item_ids().to_pylist()
    file = csv_file(tmp_path, [f"new-{user},{names[item]}" for user, item in zip(users, items, strict=True)])
    options = {"storage": lightgcn.storage, "k": 5, "exclude": "train"}
    known = lists(braidrec.recommend("lightgcn", **options, output=str(tmp_path / "known")).recommendations)
    new = lists(braidrec.recommend("lightgcn", **options, new_users=file, output=str(tmp_path / "new")).recommendations)
    shared = [
        len({item for item, _ in rows} & {item for item, _ in new[f"new-{int(user[5:])}"]}) / 5
        for user, rows in known.items()
    ]
    assert np.mean(shared) > 0.5  # five of about thirty candidates at random: 0.17


def test_files_that_cannot_be_used(lightgcn: Finished, tmp_path: Path) -> None:
    def refuse(kind: type[Exception], message: str, file: str, **options: object) -> None:
        with pytest.raises(kind, match=message):
            braidrec.recommend(
                "lightgcn", storage=lightgcn.storage, new_users=file, output=str(tmp_path / "out"), **options
            )

    refuse(DatasetError, "no such file", str(tmp_path / "none.csv"))
    refuse(
        ConfigError, "none of its 1 item ids is one of this data set, such as 'item-00'", csv_file(tmp_path, ["a,b"])
    )
    refuse(ConfigError, "new.csv, line 3: no item_id", csv_file(tmp_path, ["a,item-01", "b,"]))
    refuse(ConfigError, "has no rows", csv_file(tmp_path, []))
    refuse(ConfigError, "new_users with users or users_file", csv_file(tmp_path), users=("user-01",))
    (tmp_path / "other.csv").write_text("user,item_id\na,item-01\n")
    refuse(DatasetError, "no column 'user_id'", str(tmp_path / "other.csv"))
    assert not (tmp_path / "out").exists()
