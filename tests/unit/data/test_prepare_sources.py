"""Sources with splits, vectors or metadata of their own: given files, MMRec folders, vectors by id, Amazon dumps."""

import gzip
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from prepare_runs import SPLITS, rows_of, run, write_log

from braidrec.config.prepare import FeaturesConfig
from braidrec.data.description import ProtocolDescription
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.stages import ray_session
from braidrec.data.vectors import check_vectors, configured_source, write_vectors
from braidrec.data.writer import DatasetWriter

pytestmark = pytest.mark.slow  # all of them wait for Ray to start


@pytest.fixture(scope="module", autouse=True)
def ray_running():
    with ray_session():
        yield


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
    (tmp_path / "views.csv").write_text("one,other\ni3,i1\ni1,i9\ni4,i2\n")
    result = run(
        tmp_path / "set",
        f"features.sound={{vectors: {tmp_path}/v.npy, ids: {tmp_path}/ids.txt}}",
        f"features.text={{vectors: {tmp_path}/v.parquet, id_column: sku, vector_column: v}}",
        f"media.image.folder={tmp_path}/pictures",
        f"items={{paths: [{tmp_path}/items.csv], id_column: sku, keep: [name], text: [name, year]}}",
        f"relations.also_viewed={{paths: [{tmp_path}/views.csv], source: one, destination: other}}",
        log=log,
    )
    folder = DatasetFolder.open(result.path)
    folder.verify()
    items, vectors = folder.features("sound")
    assert (items.tolist(), vectors.tolist()) == ([0, 2], [[1, 1], [3, 3]])
    assert [ends.tolist() for ends in folder.relation("also_viewed")[:2]] == [[2, 3], [0, 1]]
    items, vectors = folder.features("text")
    assert (items.tolist(), vectors.tolist(), vectors.dtype) == ([1, 3], [[2, 2.5], [4, 4.5]], np.float16)
    assert folder.description.modalities["sound"].coverage == 0.5
    assert folder.items_table().column("name").to_pylist() == ["One", None, None, "Four"]
    media = {name: pq.read_table(f"{result.path}/media/{name}.parquet").to_pylist() for name in ("image", "text")}
    assert media["text"] == [{"item": 0, "text": "One\n1"}, {"item": 3, "text": "Four\n4"}]
    assert [(row["item"], Path(row["uri"]).name) for row in media["image"]] == [(1, "i2.jpg"), (3, "i4.png")]
    counts = {entry.reason: entry.count for entry in result.dropped}
    assert counts == {
        "also_viewed: an end is not among the items of the data set": 1,
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
