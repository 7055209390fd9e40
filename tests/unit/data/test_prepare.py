"""Whole preparations on Ray against a preparation in dicts and loops."""

import gzip
import itertools
import json
import random
from pathlib import Path

import naive_prepare as naive
import networkx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from braidrec.config.load import load_config
from braidrec.config.prepare import FeaturesConfig, PrepareConfig
from braidrec.data.description import ProtocolDescription
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.prepare import prepare
from braidrec.data.stages import ray_session
from braidrec.data.vectors import check_vectors, configured_source, write_vectors
from braidrec.data.writer import DatasetWriter

SPLITS = ("train", "valid", "test")

pytestmark = pytest.mark.slow  # all of them wait for Ray to start


@pytest.fixture(scope="module", autouse=True)
def ray_running():
    with ray_session():
        yield


def random_log(seed, *, rows=400, users=30, items=25):
    """Rows with repetitions, unequal activity, equal times and ids of several lengths.

    The rare users and items are spread over the order of the ids, so that whoever is removed shifts the indices.
    """
    chooser = random.Random(seed)
    return [
        {
            "user": f"u{(11 * int(users * chooser.random() ** 2) + 5) % users}",
            "item": str((7 * int(items * chooser.random() ** 2) + 3) % items),
            "rating": float(chooser.randint(1, 5)),
            "timestamp": chooser.randint(1000, 1100),
        }
        for _ in range(rows)
    ]


def write_log(folder, rows, *, files=2):
    """The log as CSV files, cut into consecutive pieces."""
    folder.mkdir()
    size = -(-len(rows) // files)
    for number in range(files):
        piece = rows[number * size : (number + 1) * size]
        pacsv.write_csv(pa.Table.from_pylist(piece), str(folder / f"log-{number}.csv"))
    return folder


COLUMNS = "source.columns={user: user, item: item, rating: rating, timestamp: timestamp}"


def run(output, *overrides, log=None):
    source = [f"source={{kind: table, paths: [{log}]}}", COLUMNS] if log is not None else []
    config = load_config(PrepareConfig, [], [f"output={output}", *source, *overrides])
    return prepare(config)


def rows_of(path):
    """The prepared splits in the users' own ids, as sorted tuples."""
    folder = DatasetFolder.open(str(path))
    folder.verify()
    users, items = folder.user_ids().to_pylist(), folder.item_ids().to_pylist()
    found = {}
    for split in SPLITS:
        pairs = zip(*folder.edges(split), strict=True)
        columns = [
            folder.column(split, name) for name in ("timestamp", "rating") if folder.column(split, name) is not None
        ]
        found[split] = sorted(
            (users[user], items[item], *(column[row].item() for column in columns))
            for row, (user, item) in enumerate(pairs)
        )
    return found


def tuples(splits):
    return {
        name: sorted((row["user"], row["item"], row["timestamp"], row["rating"]) for row in rows)
        for name, rows in splits.items()
    }


def one_each(rows):
    return int(rows >= 3), int(rows >= 2)


def shares(valid, test):
    def held_out(rows):
        num_test = min(int(rows * test + 0.5), rows - 1)
        return min(int(rows * valid + 0.5), rows - 1 - num_test), num_test

    return held_out


BY_TIME = {
    "leave_one_out": (["split.kind=leave_one_out"], lambda rows: naive.user_tails(rows, one_each)),
    "user_time": (
        ["split={kind: user_time, valid: 0.2, test: 0.3}", "deduplicate=first"],
        lambda rows: naive.user_tails(rows, shares(0.2, 0.3)),
    ),
    "global_time": (
        ["split={kind: global_time, valid: 0.15, test: 0.2}", "unknown_users=drop"],
        lambda rows: naive.drop_unknown_users(naive.global_tail(rows, 0.15, 0.2)),
    ),
    "global_moment": (
        ["split={kind: global_moment, valid_from: 1070, test_from: 1080}", "unknown_users=keep", "deduplicate=none"],
        lambda rows: naive.moments(rows, 1070, 1080),
    ),
}


def check_split_by_time(folder, seed, kind, *overrides):
    options, oracle = BY_TIME[kind]
    rows = random_log(seed)
    which = next((option.partition("=")[2] for option in options if option.startswith("dedup")), "last")
    expected = oracle(naive.k_core(naive.deduplicate(rows, which), 3, 4))
    log = write_log(folder / "log", rows)
    result = run(folder / "set", *options, *overrides, "core.users=3", "core.items=4", log=log)
    assert rows_of(folder / "set") == tuples(expected)
    assert dict(result.rows) == {name: len(found) for name, found in expected.items()}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", BY_TIME)
def test_splits_by_time(tmp_path, seed, kind):
    check_split_by_time(tmp_path, seed, kind)


def test_splits_by_time_over_several_partitions(tmp_path):
    check_split_by_time(tmp_path, 2, "global_time", "partition_rows=90", "part_rows=60")


@pytest.mark.parametrize("least", [(1, 1), (5, 1), (1, 6), (6, 5)])
def test_k_core_reaches_the_fixed_point(tmp_path, least):
    rows = naive.deduplicate(random_log(7, rows=500), "last")
    core = naive.k_core(rows, *least)
    log = write_log(tmp_path / "log", rows)
    result = run(tmp_path / "set", f"core={{users: {least[0]}, items: {least[1]}}}", log=log)
    found = [row for split in rows_of(tmp_path / "set").values() for row in split]
    assert sorted(found) == sorted(tuples({"all": core})["all"])
    removed = sum(entry.count for entry in result.dropped if "core" in entry.reason)
    assert removed == len(rows) - len(core)
    assert result.num_users == len({row["user"] for row in core})
    assert result.num_items == len({row["item"] for row in core})


def test_equal_thresholds_agree_with_networkx(tmp_path):
    rows = naive.deduplicate(random_log(11, rows=500), "last")
    graph = networkx.Graph((("user", row["user"]), ("item", row["item"])) for row in rows)
    core = networkx.k_core(graph, 6)
    run(tmp_path / "set", "core={users: 6, items: 6}", log=write_log(tmp_path / "log", rows))
    folder = DatasetFolder.open(str(tmp_path / "set"))
    assert {name for kind, name in core if kind == "user"} == set(folder.user_ids().to_pylist())
    assert {name for kind, name in core if kind == "item"} == set(folder.item_ids().to_pylist())


@pytest.mark.parametrize(
    ("options", "held_out"),
    [
        ("split.kind=random", lambda n: (1, 1) if 3 <= n < 10 else ((n // 5) - (n // 5) // 2, (n // 5) // 2)),
        ("split={kind: random_ratio, valid: 0.25, test: 0.1}", shares(0.25, 0.1)),
        ("split={kind: leave_one_out, order: random}", one_each),
    ],
)  # fmt: skip
def test_random_splits_hold_out_the_right_number_a_user(tmp_path, options, held_out):
    rows = naive.k_core(naive.deduplicate(random_log(3), "last"), 3, 1)
    log = write_log(tmp_path / "log", rows)
    found = {}
    for seed in (1, 2):
        run(tmp_path / str(seed), options, f"seed={seed}", log=log)
        found[seed] = rows_of(tmp_path / str(seed))
    assert sorted(itertools.chain(*found[1].values())) == sorted(tuples({"all": rows})["all"])
    assert found[1]["test"] != found[2]["test"]
    for user, mine in naive.by_user(rows).items():
        counts = [sum(row[0] == user for row in found[1][split]) for split in ("valid", "test")]
        assert counts == list(held_out(len(mine))), user


def test_random_choice_is_uniform_over_a_users_rows(tmp_path):
    """One of ten rows tests, so each of the ten places is drawn for a tenth of 600 users, whatever the place."""
    rows = [
        {"user": f"u{user}", "item": f"i{item}", "rating": 1.0, "timestamp": 1000 + item}
        for user in range(600)
        for item in range(10)
    ]
    run(tmp_path / "set", "split.kind=random", log=write_log(tmp_path / "log", rows))
    places = [int(row[1][1:]) for row in rows_of(tmp_path / "set")["test"]]
    counts = np.bincount(places, minlength=10)
    # χ² with 9 degrees of freedom exceeds 33.7 once in 10,000.
    assert ((counts - 60) ** 2 / 60).sum() < 33.7


def test_cold_items_and_users_are_exact_shares_kept_out_of_train(tmp_path):
    rows = naive.deduplicate(random_log(5), "last")
    log = write_log(tmp_path / "log", rows)
    for kind, place, policy in (("items", 1, "drop"), ("users", 0, "keep")):
        split = f"split={{kind: cold_{kind}, valid: 0.2, test: 0.1}}"
        run(tmp_path / kind, split, f"unknown_users={policy}", log=log)
        found = rows_of(tmp_path / kind)
        ids = {split: {row[place] for row in found[split]} for split in SPLITS}
        total = len({row[("user", "item")[place]] for row in rows})
        assert not ids["train"] & (ids["valid"] | ids["test"])
        assert not ids["valid"] & ids["test"]
        assert len(ids["valid"]) == int(total * 0.2 + 0.5)
        assert len(ids["test"]) == int(total * 0.1 + 0.5)


def test_ids_are_numbered_shortest_first(tmp_path):
    rows = [
        {"user": u, "item": i, "rating": 1.0, "timestamp": 1} for u in ("10", "9", "a") for i in ("x2", "x10", "x1")
    ]
    run(tmp_path / "set", log=write_log(tmp_path / "log", rows))
    folder = DatasetFolder.open(str(tmp_path / "set"))
    assert folder.user_ids().to_pylist() == ["9", "a", "10"]
    assert folder.item_ids().to_pylist() == ["x1", "x2", "x10"]


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()}


def test_the_same_configuration_gives_the_same_bytes_however_the_work_is_cut(tmp_path):
    log = write_log(tmp_path / "log", random_log(2), files=3)
    for name, rows in (("a", 5_000_000), ("b", 50)):
        run(tmp_path / name, f"partition_rows={rows}", "part_rows=100", "name=same", "core.users=2", log=log)
    first = content(tmp_path / "a")
    assert len([name for name in first if name.startswith("interactions/train/")]) > 1
    assert not [name for name in first if "staging" in name or "UNFINISHED" in name]
    assert first == content(tmp_path / "b")


def test_ray_data_streams_a_split(tmp_path):
    run(tmp_path / "set", "part_rows=100", log=write_log(tmp_path / "log", random_log(2)))
    folder = DatasetFolder.open(f"file://{tmp_path}/set")
    batches = list(folder.ray_dataset("train", ["user", "item", "rating"]).iter_batches(batch_size=None))
    streamed = sorted(zip(*(np.concatenate([b[name] for b in batches]) for name in ("user", "item")), strict=True))
    assert streamed == sorted(zip(*folder.edges("train"), strict=True))
    assert set(batches[0]) == {"user", "item", "rating"}


def test_repetitions_and_low_ratings_are_counted(tmp_path):
    rows = [
        {"user": "a", "item": "x", "rating": 5.0, "timestamp": 2},
        {"user": "a", "item": "x", "rating": 1.0, "timestamp": 1},
        {"user": "a", "item": "y", "rating": 2.0, "timestamp": 1},
        *({"user": user, "item": item, "rating": 4.0, "timestamp": 9} for user in "ab" for item in "zwv"),
    ]
    result = run(tmp_path / "set", "min_rating=3", log=write_log(tmp_path / "log", rows))
    assert sum(result.rows.values()) == 7
    dropped = {entry.reason: (entry.what, entry.count) for entry in result.dropped}
    assert dropped == {
        "the same user and item again, the last one stays": ("rows", 1),
        "rating below 3.0": ("rows", 1),
        "no row is left": ("items", 1),
    }
    assert result.description.notes == ("1 pairs of user and item had several ratings or weights: the last one stays",)


def test_rows_kept_twice_are_noted(tmp_path):
    rows = [{"user": "a", "item": "x", "rating": 1.0, "timestamp": t} for t in range(4)]
    result = run(
        tmp_path / "set", "deduplicate=none", "split.kind=leave_one_out", log=write_log(tmp_path / "log", rows)
    )
    assert dict(result.rows) == {"train": 2, "valid": 1, "test": 1}
    assert "2 rows of valid and test repeat a user and item of train" in result.description.notes[0]


def test_unknown_users(tmp_path):
    rows = [
        *({"user": "old", "item": i, "rating": 1.0, "timestamp": t} for t, i in enumerate("abcdefgh")),
        {"user": "new", "item": "a", "rating": 1.0, "timestamp": 7},
    ]
    log = write_log(tmp_path / "log", rows)
    split = "split={kind: global_moment, valid_from: 6, test_from: 7}"
    with pytest.raises(DatasetError, match=r"1 users, such as 'new', are in valid or test but not in train \(1 rows\)"):
        run(tmp_path / "refused", split, log=log)
    assert not (tmp_path / "refused").exists()
    assert run(tmp_path / "kept", split, "unknown_users=keep", log=log).num_users == 2
    dropped = run(tmp_path / "dropped", split, "unknown_users=drop", log=log)
    assert dropped.num_users == 1
    assert dict(dropped.rows) == {"train": 6, "valid": 1, "test": 1}
    assert [entry.count for entry in dropped.dropped if "not in train" in entry.reason] == [1]


def test_empty_results_are_refused(tmp_path):
    rows = [{"user": "a", "item": i, "rating": 1.0, "timestamp": 1} for i in "xy"]
    log = write_log(tmp_path / "log", rows)
    with pytest.raises(DatasetError, match=r"split\.kind=random leaves valid without rows .*allow_empty_splits=true"):
        run(tmp_path / "a", log=log)
    assert run(tmp_path / "b", "allow_empty_splits=true", log=log).description.notes == ("valid is empty",)
    with pytest.raises(DatasetError, match=r"core\.users=3, core\.items=1: no row of 2 is left; lower them"):
        run(tmp_path / "a", "core.users=3", log=log)
    with pytest.raises(DatasetError, match=r"no row is left after min_rating=2\.0; lower it"):
        run(tmp_path / "a", "min_rating=2", log=log)
    with pytest.raises(DatasetError, match="leaves train without rows"):
        run(tmp_path / "a", "split={kind: global_moment, valid_from: 0, test_from: 0}", "unknown_users=keep", log=log)


def test_bad_rows_go_into_quarantine(tmp_path):
    log = write_log(tmp_path / "log", random_log(1, rows=60))
    with (log / "log-1.csv").open("a") as file:
        file.write("u1,5,nan,1000\n,5,1,1000\nu1,5\n")
    with pytest.raises(DatasetError, match=r"log-1\.csv, line \d+: .*on_bad_row=quarantine"):
        run(tmp_path / "set", log=log)
    result = run(tmp_path / "set", "on_bad_row=quarantine", "allow_empty_splits=true", log=log)
    assert sum(entry.count for entry in result.dropped if "quarantine" in entry.reason) == 3
    table = pq.read_table(tmp_path / "set" / "quarantine" / "part-00001.parquet")
    assert table.column("row").to_pylist() == [30, 31, 32]
    assert table.column("content")[2].as_py() == "u1,5"


def test_units_of_time_must_agree_between_files(tmp_path):
    rows = random_log(1, rows=60)
    rows[-1]["timestamp"] *= 1_000_000_000
    with pytest.raises(DatasetError, match=r"times in seconds \(.*log-.\.csv, line .*\) and in milliseconds \(.*log-1"):
        run(tmp_path / "set", log=write_log(tmp_path / "log", rows))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["split.kind=given"], r"split\.kind=given: .*log-0\.csv brings no split; name its column in columns\.split"),
        (["split.kind=user_time", "source.columns.timestamp=null"], r"split\.kind=user_time: the log has no times"),
        (["split.kind=leave_one_out", "source.columns.timestamp=null"], "the log has no times"),
        (["min_rating=3", "source.columns.rating=null"], r"min_rating=3\.0: the log has no ratings"),
        (["source.columns.user=customer"], r"no column 'customer'.* Its columns are \['user', 'item', 'rating'"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_written(tmp_path, overrides, message):
    log = write_log(tmp_path / "log", random_log(1, rows=60))
    with pytest.raises(DatasetError, match=message):
        run(tmp_path / "set", *overrides, log=log)
    assert not (tmp_path / "set").exists()


def test_given_files(tmp_path):
    content = {
        "train": [("a", "x"), ("a", "y"), ("b", "x")], "valid": [("a", "z")], "test": [("b", "z"), ("a", "y")],
    }  # fmt: skip
    for name, pairs in content.items():
        (tmp_path / f"{name}.tsv").write_text("".join(f"{user}\t{item}\n" for user, item in pairs))
    source = ", ".join(f"{name}: [{tmp_path}/{name}.tsv]" for name in content)
    given = f"source={{kind: given_files, {source}, column_names: [user_id, item_id]}}"
    result = run(tmp_path / "set", given, "deduplicate=first")
    assert rows_of(tmp_path / "set") == {
        "train": [("a", "x"), ("a", "y"), ("b", "x")], "valid": [("a", "z")], "test": [("b", "z")],
    }  # fmt: skip
    assert result.description.protocol.kind == "given"
    assert result.description.notes == ("1 pairs of user and item lay in more than one split: the first one stays",)


@pytest.fixture
def mmrec(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    rows = [(u, i, (u + i) % 3 if u else 0) for u in range(6) for i in range(12) if (u * i) % 3 != 1]
    lines = ["userID\titemID\trating\tx_label", *(f"{u}\t{i}\t{i % 5}\t{label}" for u, i, label in rows)]
    (folder / "toy.inter").write_text("\n".join(lines) + "\n")
    vectors = np.arange(13 * 4, dtype=np.float64).reshape(13, 4)
    np.save(folder / "text_feat.npy", vectors)
    np.save(folder / "image_feat.npy", (vectors * 2).astype(np.float16))
    return folder


def test_mmrec_folder(tmp_path, mmrec):
    result = run(tmp_path / "set", f"source={{kind: mmrec, path: {mmrec}}}")
    folder = DatasetFolder.open(result.path)
    lines = [line.split("\t") for line in (mmrec / "toy.inter").read_text().splitlines()[1:]]
    for label, split in enumerate(SPLITS):
        expected = sorted((u, i, float(rating)) for u, i, rating, x in lines if int(x) == label)
        assert rows_of(result.path)[split] == expected
    ids = [int(item) for item in folder.item_ids().to_pylist()]
    for name, scale, dtype in (("text", 1, np.float32), ("image", 2, np.float16)):
        items, vectors = folder.features(name)
        assert vectors.dtype == dtype
        assert items.tolist() == list(range(folder.num_items))
        assert vectors.tolist() == [[scale * (4 * ids[item] + place) for place in range(4)] for item in items]
    reasons = [entry.reason for entry in result.dropped]
    assert reasons == ["text: the item is not in the data set", "image: the item is not in the data set"][::-1]


def test_mmrec_vectors_follow_their_items_through_the_k_core(tmp_path, mmrec):
    result = run(tmp_path / "set", f"source={{kind: mmrec, path: {mmrec}}}", "core.items=5", "split.kind=random")
    folder = DatasetFolder.open(result.path)
    assert 0 < folder.num_items < 12
    items, vectors = folder.features("text")
    ids = folder.item_ids().to_pylist()
    assert [vector[0] / 4 for vector in vectors.tolist()] == [float(ids[item]) for item in items]
    assert folder.description.modalities["text"].coverage == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: np.save(f / "text_feat.npy", np.zeros((5, 4), np.float32)), "5 rows are for items 0…4, the log has"),
        (lambda f: np.save(f / "text_feat.npy", np.full((13, 4), np.nan)), "row 0: the vector holds nan at place 0"),
        (lambda f: (f / "more.inter").write_text("x"), r"2 \.inter files .*source\.interactions"),
    ],
)  # fmt: skip
def test_mmrec_folders_that_do_not_fit(tmp_path, mmrec, change, message):
    change(mmrec)
    with pytest.raises(DatasetError, match=message):
        run(tmp_path / "set", f"source={{kind: mmrec, path: {mmrec}}}")
    assert not (tmp_path / "set").exists()


def test_vectors_of_users_are_joined_by_their_ids(tmp_path):
    np.save(tmp_path / "v.npy", np.array([[3, 3], [1, 1], [9, 9]], np.float32))
    (tmp_path / "ids.txt").write_text("cleo\nann\nstranger\n")
    config = FeaturesConfig(vectors=str(tmp_path / "v.npy"), ids=str(tmp_path / "ids.txt"))
    source = configured_source("profile", config, side="user")
    users, items = (pa.array(ids, pa.large_string()) for ids in (["ann", "bob", "cleo", "dora"], ["cleo"]))
    check_vectors([source], {"user": users, "item": items})
    with pytest.raises(DatasetError, match=r"none of its ids \('cleo', …\) is a user of the log \('zoe', …\)"):
        check_vectors([source], {"user": pa.array(["zoe"], pa.large_string()), "item": users})
    writer = DatasetWriter.begin(str(tmp_path / "set"), seed=0)
    writer.write_users(users)
    writer.write_items(items)
    for split in SPLITS:
        writer.write_split(split, {"user": np.zeros(1, np.int32), "item": np.zeros(1, np.int32)})
    (dropped,) = write_vectors(source, users, writer)
    writer.finish(name="n", protocol=ProtocolDescription(kind="given", seed=0), options={})
    assert (dropped.count, dropped.reason) == (1, "profile: the user is not in the data set")
    found, vectors = DatasetFolder.open(str(tmp_path / "set")).features("profile", side="user")
    assert (found.tolist(), vectors.tolist()) == ([0, 2], [[1, 1], [3, 3]])


def test_the_folder_of_the_users_features_is_no_modality(tmp_path, mmrec):
    (mmrec / "text_feat.npy").rename(mmrec / "user_feat.npy")
    with pytest.raises(DatasetError, match=r"features\.user: .*give the modality another name"):
        run(tmp_path / "set", f"source={{kind: mmrec, path: {mmrec}}}")
    assert not (tmp_path / "set").exists()


def test_vectors_joined_by_id_and_media(tmp_path):
    rows = [{"user": u, "item": i, "rating": 1.0, "timestamp": 1} for u in "abc" for i in ("i1", "i2", "i3", "i4")]
    log = write_log(tmp_path / "log", rows)
    np.save(tmp_path / "v.npy", np.array([[3, 3], [1, 1], [9, 9]], np.float32))
    (tmp_path / "ids.txt").write_text("i3\ni1\nunknown\n")
    half = pa.array([[2.0, 2.5], [4.0, 4.5]], pa.list_(pa.float16()))
    pq.write_table(pa.table({"sku": ["i2", "i4"], "v": half}), tmp_path / "v.parquet")
    (tmp_path / "pictures").mkdir()
    for name in ("i2.jpg", "i4.png", "i3.txt", "other.jpg"):
        (tmp_path / "pictures" / name).write_bytes(b"")
    names, years = ["Four", None, "One", "Nine", "Again"], [4, None, 1, 9, 1]  # the second has no text at all
    table = pa.table({"sku": ["i4", "i2", "i1", "i9", "i1"], "name": names, "year": years})
    pacsv.write_csv(table, tmp_path / "items.csv")
    result = run(
        tmp_path / "set",
        f"features.sound={{vectors: {tmp_path}/v.npy, ids: {tmp_path}/ids.txt}}",
        f"features.text={{vectors: {tmp_path}/v.parquet, id_column: sku, vector_column: v}}",
        f"media.image.folder={tmp_path}/pictures",
        f"items={{paths: [{tmp_path}/items.csv], id_column: sku, keep: [name], text: [name, year]}}",
        log=log,
    )
    folder = DatasetFolder.open(result.path)
    folder.verify()
    items, vectors = folder.features("sound")
    assert (items.tolist(), vectors.tolist()) == ([0, 2], [[1, 1], [3, 3]])
    items, vectors = folder.features("text")
    assert (items.tolist(), vectors.tolist(), vectors.dtype) == ([1, 3], [[2, 2.5], [4, 4.5]], np.float16)
    assert folder.description.modalities["sound"].coverage == 0.5
    assert folder.items_table().column("name").to_pylist() == ["One", None, None, "Four"]
    media = {name: pq.read_table(f"{result.path}/media/{name}.parquet").to_pylist() for name in ("image", "text")}
    assert media["text"] == [{"item": 0, "text": "One\n1"}, {"item": 3, "text": "Four\n4"}]
    assert [(row["item"], Path(row["uri"]).name) for row in media["image"]] == [(1, "i2.jpg"), (3, "i4.png")]
    counts = {entry.reason: entry.count for entry in result.dropped}
    assert counts == {
        "sound: the item is not in the data set": 1,
        "the catalogue describes an item again; its first record counts": 1,
    }


def review_lines(edition, rows):
    fields = {
        "2018": ("reviewerID", "asin", "overall", "unixReviewTime", 1),
        "2023": ("user_id", "parent_asin", "rating", "timestamp", 1000),
    }[edition]
    return "".join(
        json.dumps({fields[0]: u, fields[1]: i, fields[2]: r, fields[3]: t * fields[4], "text": "good", "n": {"a": 1}})
        + "\n"
        for u, i, r, t in rows
    )


METADATA = {
    "2018": '{"asin": "B1", "title": "Cup", "brand": "Acme", "category": ["Home", "Cups"], "description": ["A cup."], '
    '"imageURLHighRes": ["http://x/1.jpg", "http://x/1b.jpg"]}\n{"asin": "B2", "title": ""}\n{"asin": "ZZ"}\n',
    "2014": "{'asin': 'B1', 'title': \"Cup\", 'brand': 'Acme', 'categories': [['Home', 'Cups']], "
    "'description': 'A cup.', 'imUrl': 'http://x/1.jpg'}\n{'asin': 'B2'}\n",
    "2023": '{"parent_asin": "B1", "title": "Cup", "store": "Acme", "categories": ["Home", "Cups"], "features": [], '
    '"description": ["A cup."], "images": [{"thumb": "t", "large": "l", "hi_res": "http://x/1.jpg"}]}\n',
}


@pytest.mark.parametrize("edition", ["2014", "2018", "2023"])
def test_amazon_dumps(tmp_path, edition):
    reviews = [
        (f"A{u}", f"B{i}", float(1 + (u * i) % 5), 1_400_000_000 + u * 10 + i) for u in range(4) for i in range(1, 5)
    ]
    lines = review_lines("2023" if edition == "2023" else "2018", reviews)
    (tmp_path / "reviews.json.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "meta.json.gz").write_bytes(gzip.compress(METADATA[edition].encode()))
    result = run(
        tmp_path / "set",
        f"source={{kind: amazon, reviews: [{tmp_path}/reviews.json.gz], metadata: [{tmp_path}/meta.json.gz]}}",
        "split.kind=leave_one_out",
    )
    found = rows_of(result.path)
    assert sorted(itertools.chain(*found.values())) == sorted((u, i, t, r) for u, i, r, t in reviews)
    assert [row[1] for row in found["test"]] == ["B4"] * 4
    folder = DatasetFolder.open(result.path)
    first = folder.items_table().to_pylist()[0]
    assert (first["title"], first["brand"], first["categories"]) == ("Cup", "Acme", "Home, Cups")
    text = pq.read_table(f"{result.path}/media/text.parquet").to_pylist()
    assert text == [{"item": 0, "text": "Cup\nAcme\nHome, Cups\nA cup."}]
    image = pq.read_table(f"{result.path}/media/image.parquet").to_pylist()
    assert image == [{"item": 0, "uri": "http://x/1.jpg"}]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("__import__('os').system('true')\n", r"meta\.json, line 1: not a JSON object"),
        ("[1]\n", "line 1: list; one JSON object a line is wanted"),
        ('{"title": "Cup"}\n', r"line 1: none of the fields \['parent_asin', 'asin'\]; it has \['title'\]"),
        ('{"asin": "ZZ"}\n', r"describes no item of the log \(such as 'B1'\)"),
    ],
)  # fmt: skip
def test_amazon_metadata_that_is_refused(tmp_path, metadata, message):
    (tmp_path / "reviews.json").write_text(review_lines("2018", [("A", f"B{i}", 1.0, i) for i in range(1, 5)]))
    (tmp_path / "meta.json").write_text(metadata)
    source = f"source={{kind: amazon, reviews: [{tmp_path}/reviews.json], metadata: [{tmp_path}/meta.json]}}"
    with pytest.raises(DatasetError, match=message):
        run(tmp_path / "set", source)


def test_json_lines_of_no_known_edition(tmp_path):
    (tmp_path / "reviews.json").write_text('{"who": "A", "what": "B"}\n')
    with pytest.raises(DatasetError, match=r"its fields \['who', 'what'\] are of no known edition"):
        run(tmp_path / "set", f"source={{kind: amazon, reviews: [{tmp_path}/reviews.json]}}")


def test_the_result_may_be_a_uri_and_is_replaced_only_when_asked(tmp_path):
    log = write_log(tmp_path / "log", random_log(1, rows=100))
    uri = f"file://{tmp_path}/set"
    assert run(uri, "split.kind=leave_one_out", log=log).path == uri
    with pytest.raises(DatasetError, match="holds a data set already"):
        run(uri, log=log)
    run(uri, "overwrite=true", "split.kind=leave_one_out", "seed=7", log=log)
    DatasetFolder.open(str(tmp_path / "set")).verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "set"]
    written = (tmp_path / "set" / "dataset.json").read_bytes()
    with pytest.raises(DatasetError, match="no row of 83 is left"):
        run(uri, "overwrite=true", "core.users=50", log=log)
    assert (tmp_path / "set" / "dataset.json").read_bytes() == written


def test_what_is_written_about_the_preparation_can_be_read_back(tmp_path):
    log = write_log(tmp_path / "log", random_log(1, rows=100))
    config = load_config(
        PrepareConfig, [], [f"output={tmp_path}/set", f"source={{kind: table, paths: [{log}]}}", COLUMNS]
    )
    assert PrepareConfig.model_validate_json(config.model_dump_json()) == config
    options = prepare(config).description.options
    assert options["source"]["paths"] == ["log"]
    assert "output" not in options
