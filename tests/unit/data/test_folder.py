"""A dataset folder is read as written, and refused when anything in it is not."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from braidrec.data.description import ProtocolDescription
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.writer import DatasetWriter, in_stored_order, mix64, number_of_parts, pair_keys, part_of


def write_folder(path, *, seed=1, part_rows=4, train=None):
    writer = DatasetWriter.begin(str(path), seed=seed, part_rows=part_rows)
    writer.write_users(pa.array(["ann", "bob", "cleo"]))
    writer.write_items(pa.array(["x", "y", "z", "w"]), {"title": pa.array(["X", None, "Z", "W"])})
    users, items = np.divmod(np.arange(12, dtype=np.int32), 4)
    train = train or {
        "user": users, "item": items, "timestamp": np.arange(12), "rating": np.arange(12, dtype=np.float32),
    }  # fmt: skip
    writer.write_split("train", train)
    writer.write_split("valid", {"user": users[:0], "item": items[:0]})
    writer.write_split("test", {"user": users[:2], "item": items[:2], "weight": np.ones(2, np.float32)})
    vectors = np.arange(6, dtype=np.float16).reshape(2, 3)
    writer.write_features("image", np.array([3, 1]), vectors, {"kind": "hand"})
    writer.finish(name="small", protocol=ProtocolDescription(kind="given", seed=seed), options={})
    return path


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "small")


def edit_description(folder, **changes):
    file = folder / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_what_was_written_is_read(folder):
    opened = DatasetFolder.open(str(folder))
    users, items = opened.edges("train")
    assert (users.dtype, items.dtype) == (np.int32, np.int32)
    ratings = opened.column("train", "rating")
    assert ratings.dtype == np.float32
    assert sorted(zip(users.tolist(), items.tolist(), ratings.tolist(), strict=True)) == [
        (n // 4, n % 4, float(n)) for n in range(12)
    ]
    assert (opened.column("train", "timestamp") == ratings.astype(np.int64)).all()
    assert opened.column("train", "weight") is None
    assert opened.column("test", "weight").tolist() == [1.0, 1.0]
    assert [opened.num_rows(split) for split in ("train", "valid", "test")] == [12, 0, 2]
    assert opened.edges("valid")[0].tolist() == []
    assert opened.user_ids().to_pylist() == ["ann", "bob", "cleo"]
    assert opened.items_table().column("title").to_pylist() == ["X", None, "Z", "W"]
    present, vectors = opened.features("image")
    assert present.tolist() == [1, 3]
    assert vectors.dtype == np.float16
    assert vectors.tolist() == [[3, 4, 5], [0, 1, 2]]
    assert opened.description.modalities["image"].coverage == 0.5
    opened.verify()


def test_a_uri_is_as_good_as_a_path(folder):
    opened = DatasetFolder.open(f"file://{folder}/")
    assert opened.edges("test")[0].tolist() == DatasetFolder.open(str(folder)).edges("test")[0].tolist()


def test_component_features_keep_their_shape(tmp_path):
    writer = DatasetWriter.begin(str(tmp_path / "set"), seed=0)
    writer.write_users(pa.array(["u"]))
    writer.write_items(pa.array(["a", "b"]))
    for split in ("train", "valid", "test"):
        writer.write_split(split, {"user": np.zeros(1, np.int32), "item": np.zeros(1, np.int32)})
    regions = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    writer.write_features("regions", np.array([0, 1]), regions, {})
    writer.finish(name="n", protocol=ProtocolDescription(kind="given", seed=0), options={})
    assert (DatasetFolder.open(str(tmp_path / "set")).features("regions")[1] == regions).all()


def test_users_have_features_of_their_own(tmp_path):
    """Also under the name that a modality of the items has."""
    writer = DatasetWriter.begin(str(tmp_path / "set"), seed=0)
    writer.write_users(pa.array(["u", "v", "w", "x"]))
    writer.write_items(pa.array(["a", "b"]))
    for split in ("train", "valid", "test"):
        writer.write_split(split, {"user": np.zeros(1, np.int32), "item": np.zeros(1, np.int32)})
    writer.write_features("text", np.array([1]), np.full((1, 2), 9, np.float32), {})
    profiles = np.array([[5, 6, 7], [1, 2, 3]], np.float16)
    writer.write_features("text", np.array([3, 0]), profiles, {"kind": "hand"}, side="user")
    writer.finish(name="n", protocol=ProtocolDescription(kind="given", seed=0), options={})
    opened = DatasetFolder.open(str(tmp_path / "set"))
    users, vectors = opened.features("text", side="user")
    assert (users.tolist(), vectors.dtype) == ([0, 3], np.float16)
    assert vectors.tolist() == [[1, 2, 3], [5, 6, 7]]
    assert (opened.modality("text", "user").coverage, opened.modality("text", "user").dim) == (0.5, 3)
    assert (opened.modality("text").coverage, opened.modality("text").dim) == (0.5, 2)
    assert opened.features("text")[1].tolist() == [[9, 9]]
    assert pq.read_schema(tmp_path / "set" / "features" / "user" / "text" / "part-00000.parquet").names[0] == "user"
    with pytest.raises(DatasetError, match=r"no user modality 'image'; it has \['text'\]"):
        opened.features("image", side="user")


def test_rows_are_stored_in_seeded_random_order_over_all_parts(tmp_path):
    orders = []
    for seed in (1, 2):
        opened = DatasetFolder.open(str(write_folder(tmp_path / str(seed), seed=seed)))
        assert len(opened.parts("interactions/train")) == 3
        users, items = opened.edges("train")
        assert (np.diff(pair_keys(users, items, seed).astype(object)) > 0).all()
        orders.append((users * 4 + items).tolist())
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])


def test_the_same_content_gives_the_same_bytes(tmp_path):
    shuffled = np.random.default_rng(0).permutation(12)
    train = {
        "user": (shuffled // 4).astype(np.int32), "item": (shuffled % 4).astype(np.int32),
        "timestamp": shuffled, "rating": shuffled.astype(np.float32),
    }  # fmt: skip
    first, second = write_folder(tmp_path / "a"), write_folder(tmp_path / "b", train=train)
    files = sorted(file.relative_to(first) for file in first.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(second) for file in second.rglob("*") if file.is_file())
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes(), file
    assert DatasetFolder.open(str(first)).digest == DatasetFolder.open(str(second)).digest


def test_repeated_pairs_have_one_order():
    rows = {"user": [0, 0, 0], "item": [1, 1, 1], "timestamp": [5, 3, 4], "rating": [1.0, 2.0, 0.0]}
    tables = [pa.table({name: pa.array([values[i] for i in order]) for name, values in rows.items()})
              for order in ([0, 1, 2], [2, 0, 1])]  # fmt: skip
    ordered = [in_stored_order(table, 3).to_pydict() for table in tables]
    assert ordered[0] == ordered[1]
    assert ordered[0]["timestamp"] == [3, 4, 5]


def test_mixing_is_a_permutation_that_looks_random():
    mixed = mix64(np.arange(100_000, dtype=np.uint64), 7)
    assert len(np.unique(mixed)) == 100_000
    # Each of the 64 bits is set in half of the values: 5 standard deviations of a fair coin are 790.
    bits = (mixed[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
    assert (abs(bits.sum(0).astype(int) - 50_000) < 790).all()
    counts = np.bincount(part_of(mixed, 7), minlength=7)
    assert (abs(counts - 100_000 / 7) < 5 * np.sqrt(100_000 / 7)).all()
    assert [number_of_parts(rows, 4) for rows in (0, 4, 5)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: edit_description(f, schema_version=2), r"schema_version is 2, this .* reads 1; prepare"),
        (lambda f: edit_description(f, colour="red"), r"colour: unknown key"),
        (lambda f: edit_description(f, num_users="3"), r"num_users: .*integer"),
        (lambda f: (f / "dataset.json").write_text("{"), r"dataset\.json: not readable as JSON"),
        (lambda f: (f / "dataset.json").write_bytes(b"\xff"), r"dataset\.json: not readable as JSON"),
        (lambda f: (f / "dataset.json").unlink(), r"no dataset\.json in it, so it is not a dataset folder"),
        (lambda f: (f / "items.parquet").unlink(), r"items\.parquet: no such file; prepare the data set again"),
        (
            lambda f: (f / "users.parquet").write_bytes((f / "users.parquet").read_bytes()[:-9]),
            r"users\.parquet: \d+ bytes, dataset\.json says \d+; the file is truncated or was changed",
        ),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(DatasetError, match=message):
        DatasetFolder.open(str(folder))


def test_a_missing_split_is_refused(folder):
    description = json.loads((folder / "dataset.json").read_text())
    del description["splits"]["valid"]
    edit_description(folder, splits=description["splits"])
    with pytest.raises(DatasetError, match="split 'valid' is missing"):
        DatasetFolder.open(str(folder))


def test_no_folder_and_an_unfinished_one(tmp_path):
    with pytest.raises(DatasetError, match=r"gone: no such folder; make it with jobs/prepare\.py"):
        DatasetFolder.open(str(tmp_path / "gone"))
    DatasetWriter.begin(str(tmp_path / "half"), seed=0)
    with pytest.raises(DatasetError, match="its preparation did not finish"):
        DatasetFolder.open(str(tmp_path / "half"))
    with pytest.raises(DatasetError, match=r"nosuch://a/b: .*URI that pyarrow reads"):
        DatasetFolder.open("nosuch://a/b")


def replace_part(folder, table):
    """Put other rows into a part of the test split, with a size and hash that fit."""
    from braidrec.data.storage import Location
    from braidrec.data.writer import write_table

    path = "interactions/test/part-00000.parquet"
    entry = write_table(Location.of(folder).child(path), table)
    files = json.loads((folder / "dataset.json").read_text())["files"]
    edit_description(folder, files=files | {path: entry.to_plain()})


def test_ids_out_of_range_are_refused(folder):
    replace_part(folder, pa.table({"user": pa.array([0, 3], pa.int32()), "item": pa.array([0, 1], pa.int32())}))
    opened = DatasetFolder.open(str(folder))
    with pytest.raises(DatasetError, match=r"interactions/test, row 1: user=3 is outside 0…2"):
        opened.edges("test")


def test_a_row_without_an_id_is_refused(folder):
    replace_part(folder, pa.table({"user": pa.array([0, 1], pa.int32()), "item": pa.array([0, None], pa.int32())}))
    with pytest.raises(DatasetError, match=r"interactions/test, row 1: item is null; prepare"):
        DatasetFolder.open(str(folder)).edges("test")


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_chunks_are_the_split_in_order(folder, rows):
    opened = DatasetFolder.open(str(folder))
    users, items = opened.edges("train")
    found = list(opened.chunks("train", ["item", "user"], rows))
    assert max(len(chunk["user"]) for chunk in found) <= rows
    assert np.concatenate([chunk["user"] for chunk in found]).tolist() == users.tolist()
    assert np.concatenate([chunk["item"] for chunk in found]).tolist() == items.tolist()
    assert all(values.dtype == np.int32 for chunk in found for values in chunk.values())


@pytest.mark.parametrize("rows", [1, 3])
def test_more_rows_than_described_are_refused_before_they_are_handed_out(folder, rows):
    """Whoever fills an array of the described size never gets more than that."""
    ids = pa.array([0, 1, 2], pa.int32())
    replace_part(folder, pa.table({"user": ids, "item": ids}))
    handed = []
    chunks = DatasetFolder.open(str(folder)).chunks("test", ["user", "item"], rows)
    with pytest.raises(DatasetError, match=r"interactions/test: 3 rows, dataset\.json says 2"):
        handed.extend(user for chunk in chunks for user in chunk["user"].tolist())
    assert len(handed) <= 2


def test_another_number_of_rows_is_refused(folder):
    replace_part(folder, pa.table({"user": pa.array([0], pa.int32()), "item": pa.array([0], pa.int32())}))
    with pytest.raises(DatasetError, match=r"interactions/test: 1 rows, dataset\.json says 2"):
        DatasetFolder.open(str(folder)).edges("test")


def test_a_missing_column_and_a_change_in_place(folder):
    replace_part(folder, pa.table({"user": pa.array([0], pa.int32())}))
    opened = DatasetFolder.open(str(folder))
    with pytest.raises(DatasetError, match="no column 'item'; it has"):
        opened.edges("test")
    content = bytearray((folder / "items.parquet").read_bytes())
    content[40] ^= 1
    (folder / "items.parquet").write_bytes(bytes(content))
    with pytest.raises(DatasetError, match=r"items\.parquet: SHA-256 is .* the file was changed"):
        opened.verify()


def test_names_that_do_not_exist(folder):
    opened = DatasetFolder.open(str(folder))
    with pytest.raises(ValueError, match="column 'price': choose one of"):
        opened.column("train", "price")
    with pytest.raises(DatasetError, match=r"no item modality 'sound'; it has \['image'\]"):
        opened.features("sound")


def test_only_data_sets_are_overwritten(tmp_path, folder):
    with pytest.raises(DatasetError, match=r"holds a data set already; .* overwrite=true"):
        DatasetWriter.begin(str(folder), seed=0)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(DatasetError, match=r"holds 1 files \(such as thesis\.tex\) and is no dataset folder"):
        DatasetWriter.begin(str(tmp_path / "home"), seed=0, overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").exists()
    with pytest.raises(DatasetError, match="is a file; name a folder"):
        DatasetWriter.begin(str(tmp_path / "home" / "thesis.tex"), seed=0)
    DatasetWriter.begin(str(folder), seed=0, overwrite=True)
    assert not (folder / "dataset.json").exists()
    with pytest.raises(DatasetError, match="holds an unfinished preparation"):
        DatasetWriter.begin(str(folder), seed=0)


def test_what_was_to_be_replaced_comes_back_if_the_new_one_fails(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    DatasetWriter.begin(str(folder), seed=0, overwrite=True)  # killed: nobody abandons it
    writer = DatasetWriter.begin(str(folder), seed=0, overwrite=True)
    writer.write_users(pa.array(["someone else"]))
    assert (folder / "users.parquet").read_bytes() != before["users.parquet"]
    writer.abandon()
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    DatasetFolder.open(str(folder)).verify()
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_vectors_are_stored_as_fixed_size_lists(folder):
    schema = pq.read_schema(folder / "features" / "image" / "part-00000.parquet")
    assert schema.field("vector").type == pa.list_(pa.float16(), 3)
    assert schema.field("item").type == pa.int32()


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, folder):
    """What dataset.json names is looked for among the folder's own files only."""
    outside = tmp_path / "outside.parquet"
    outside.write_bytes((folder / "users.parquet").read_bytes())
    described = json.loads((folder / "dataset.json").read_text())
    for name in ("../outside.parquet", str(outside)):
        edit_description(folder, files=described["files"] | {name: described["files"]["users.parquet"]})
        with pytest.raises(DatasetError, match=r"outside\.parquet: no such file"):
            DatasetFolder.open(str(folder))
    modality = described["modalities"]["image"]
    edit_description(folder, files=described["files"], modalities={"../../image": modality})
    with pytest.raises(DatasetError, match=r"modalities\.\.\./\.\./image"):
        DatasetFolder.open(str(folder))
