"""Whole preparations on Ray against a preparation in dicts and loops."""

import itertools
from pathlib import Path

import naive_prepare as naive
import networkx
import numpy as np
import pyarrow.parquet as pq
import pytest
from prepare_runs import COLUMNS, SPLITS, random_log, rows_of, run, tuples, write_log

from braidrec.config.load import load_config
from braidrec.config.prepare import PrepareConfig
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.prepare import prepare
from braidrec.data.stages import ray_session

pytestmark = pytest.mark.slow  # all of them wait for Ray to start


@pytest.fixture(scope="module", autouse=True)
def ray_running():
    with ray_session():
        yield


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
