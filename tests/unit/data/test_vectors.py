"""Vectors: what their files may be, and that each row reaches the item whose id it has."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from braidrec.config.prepare import FeaturesConfig
from braidrec.data.errors import DatasetError
from braidrec.data.vectors import configured_source, matrix_source, row_ids


def read_all(source):
    row_ids(source)
    return np.concatenate([source.read(chunk) for chunk in source.chunks()])


def save(folder, array, name="text_feat.npy"):
    np.save(folder / name, array)
    return str(folder / name)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, np.float32), r"shape \(3,\) of float32; wanted \[items, dim\]"),
        (np.zeros((3, 0), np.float32), r"shape \(3, 0\)"),
        (np.zeros((3, 2), np.int64), r"shape \(3, 2\) of int64"),
        (np.zeros((3, 2), np.complex64), "of complex64"),
        (np.array([[1, "a"]], dtype=object), "nothing is ever unpickled"),
    ],
)
def test_only_matrices_of_floats_are_taken(tmp_path, array, message):
    path = tmp_path / "text_feat.npy"
    np.save(path, array, allow_pickle=True)
    with pytest.raises(DatasetError, match=message) as raised:
        matrix_source("text", str(path))
    assert "text_feat.npy" in str(raised.value)


class Trap:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


def test_a_pickle_named_npy_is_never_loaded(tmp_path):
    path = tmp_path / "text_feat.npy"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DatasetError, match="nothing is ever unpickled"):
        matrix_source("text", str(path))


def test_truncated_and_missing_files(tmp_path):
    path = tmp_path / "text_feat.npy"
    save(tmp_path, np.zeros((100, 8), np.float32))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DatasetError, match=r"text_feat\.npy: not readable as a \.npy"):
        matrix_source("text", str(path))
    with pytest.raises(DatasetError, match=r"gone\.npy: no such file; it was named for modality 'text'"):
        matrix_source("text", str(tmp_path / "gone.npy"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_named(tmp_path, value):
    array = np.ones((10, 4), np.float32)
    array[7, 2] = value
    source = matrix_source("text", save(tmp_path, array))
    (chunk,) = source.chunks()
    with pytest.raises(DatasetError, match=rf"row 7: the vector holds {value} at place 2"):
        source.read(chunk)


def test_values_beyond_the_stored_format_are_refused(tmp_path):
    source = matrix_source("text", save(tmp_path, np.full((2, 2), 1e300)))
    with pytest.raises(DatasetError, match="row 0: the vector holds inf"):
        source.read(source.chunks()[0])


def test_chunks_cover_all_rows(tmp_path, monkeypatch):
    monkeypatch.setattr("braidrec.data.vectors.CHUNK_BYTES", 3 * 8 * 4)
    array = np.random.default_rng(0).random((10, 8)).astype(np.float32)
    source = matrix_source("text", save(tmp_path, array))
    chunks = source.chunks()
    assert len(chunks) == 4
    assert (np.concatenate([source.read(chunk) for chunk in chunks]) == array).all()


@pytest.mark.parametrize(
    ("source", "stored"), [(np.float16, np.float16), (np.float32, np.float32), (np.float64, np.float32)]
)
def test_formats_of_numbers(tmp_path, source, stored):
    described = matrix_source("text", save(tmp_path, np.ones((2, 2), source)))
    assert described.read(described.chunks()[0]).dtype == stored
    assert described.dtype == np.dtype(stored).name


@pytest.mark.parametrize(
    ("name", "content"),
    [("ids.txt", "b\n007\n"), ("ids.csv", "n,item_id\n1,b\n2,007\n"), ("ids.tsv", "item_id\nb\n007\n")],
)
def test_ids_from_a_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    config = FeaturesConfig(vectors=save(tmp_path, np.ones((2, 3), np.float32)), ids=str(tmp_path / name))
    assert row_ids(configured_source("text", config)).to_pylist() == ["b", "007"]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ("a\n", r"ids\.txt: 1 ids, .*v\.npy has 2 vectors"),
        ("a\na\n", r"ids\.txt: id 'a' has several vectors; keep one per item"),
    ],
)
def test_ids_that_do_not_fit(tmp_path, ids, message):
    (tmp_path / "ids.txt").write_text(ids)
    vectors = save(tmp_path, np.ones((2, 3), np.float32), "v.npy")
    source = configured_source("text", FeaturesConfig(vectors=vectors, ids=str(tmp_path / "ids.txt")))
    with pytest.raises(DatasetError, match=message):
        row_ids(source)


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.list_(pa.float16()), pa.list_(pa.float32(), 2),
             pa.large_list(pa.float32())]
)  # fmt: skip
def test_parquet_vectors(tmp_path, kind):
    table = pa.table({"item_id": [3, 1, 2], "vector": pa.array([[1, 2], [3, 4], [5, 6]], kind)})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=2)
    source = configured_source("text", FeaturesConfig(vectors=str(tmp_path / "v.parquet")))
    assert row_ids(source).to_pylist() == ["3", "1", "2"]
    vectors = read_all(source)
    assert vectors.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert vectors.dtype == (np.float16 if kind.value_type == pa.float16() else np.float32)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"item_id": ["a", "b"], "vector": [[1.0, 2.0], [1.0]]}, r"row 1: a vector of 1 numbers, the first one has 2"),
        ({"item_id": ["a", "b"], "vector": [[1.0, 2.0], None]}, r"row 1: a vector of 0 numbers, the first one has 2"),
        ({"item_id": ["a"], "vector": [[float("nan")]]}, r"row 0: the vector holds nan"),
        ({"item_id": ["a"], "vector": [[1.0, None]]}, r"row 0: the vector holds nan at place 1"),
        ({"item_id": ["a"], "vector": ["text"]}, r"column 'vector' holds string; wanted lists of floats"),
        ({"item_id": ["a"], "vector": [[]]}, r"column 'vector' holds list<.*null>; wanted lists of floats"),
        ({"id": ["a"], "vector": [[1.0]]}, r"no column 'item_id'. Did you mean|no column 'item_id'"),
    ],
)
def test_parquet_vectors_that_are_refused(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "v.parquet")
    with pytest.raises(DatasetError, match=message):
        read_all(configured_source("text", FeaturesConfig(vectors=str(tmp_path / "v.parquet"))))
