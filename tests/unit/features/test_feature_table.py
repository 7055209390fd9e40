"""A feature table against the vectors that went in: joined by id, absent rows zero, bad rows refused by name."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from feature_folders import block, layout, table_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from braidrec.data.errors import DatasetError
from braidrec.features.build import build_feature_table
from braidrec.features.table import FeatureTable

RANDOM = np.random.default_rng(0)
DENSE = RANDOM.standard_normal((7, 4)).astype(np.float32)
PRESENT = [0, 2, 3, 6]
NAN = float("nan")


def build(blocks, cache: Path, key: str = "k", **more) -> FeatureTable:
    wanted = {"num_rows": 7, "dim": 4} | more
    return build_feature_table(blocks, cache=cache, key=key, layout=layout(**wanted))


def forbidden():
    raise AssertionError("read again")
    yield


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_come_back_where_they_belong(tmp_path: Path, dtype: str) -> None:
    """Blocks out of order, ids out of order within a block, an empty block."""
    dense = DENSE.astype(dtype)
    blocks = [block([6, 2], dense[[6, 2]]), block([], dense[:0]), block([3, 0], dense[[3, 0]])]
    table = build(blocks, tmp_path, dtype=dtype, num_vectors=4)
    wanted = np.zeros((7, 4), np.float32)
    wanted[PRESENT] = dense[PRESENT]
    values, present = table.rows()
    assert values.dtype == torch.float32 and present.dtype == torch.bool
    np.testing.assert_array_equal(values.numpy(), wanted)
    assert np.flatnonzero(present.numpy()).tolist() == PRESENT
    assert table.values.dtype == np.dtype(dtype) and isinstance(table.values, np.memmap)
    assert (table.num_rows, table.dim, table.shape, table.coverage) == (7, 4, (4,), 4 / 7)
    some = torch.tensor([5, 6, 6, 0])
    values, present = table.rows(some)
    np.testing.assert_array_equal(values.numpy(), wanted[some])
    assert present.tolist() == [False, True, True, True]
    np.testing.assert_array_equal(table.read(slice(1, 4), slice(1, 3)), wanted[1:4, 1:3])
    np.testing.assert_array_equal(table.read(np.array([6, 0])), wanted[[6, 0]])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_division_into_blocks_gives_the_same_table(tmp_path: Path, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    ids = data.draw(st.lists(st.integers(0, count - 1), unique=True))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=3)))
    dense = np.arange(count * 3, dtype=np.float32).reshape(count, 3) + 1
    pieces = np.split(np.array(ids, np.int64), cuts)
    key = repr((count, ids, cuts))
    table = build([block(piece.tolist(), dense[piece]) for piece in pieces], tmp_path, key, num_rows=count, dim=3)
    for row in range(count):
        there = row in ids
        assert table.values[row].tolist() == (dense[row].tolist() if there else [0, 0, 0])
        assert bool(table.present[row]) == there


def test_components_keep_their_shape(tmp_path: Path) -> None:
    regions = RANDOM.standard_normal((2, 3, 4)).astype(np.float32)
    table = build([block([4, 1], regions)], tmp_path, dim=(3, 4))
    assert (table.shape, table.dim) == ((3, 4), 12)
    values, _ = table.rows(torch.tensor([1, 4]))
    np.testing.assert_array_equal(values.reshape(2, 3, 4).numpy(), regions[[1, 0]])


def test_built_once(tmp_path: Path) -> None:
    first = build([block(PRESENT, DENSE[PRESENT])], tmp_path)
    second = build(forbidden(), tmp_path)
    np.testing.assert_array_equal(second.values, first.values)
    assert second.content_key == first.content_key
    assert np.shares_memory(first.rows()[0].numpy(), first.values)


def test_whatever_makes_another_table_makes_another_key(tmp_path: Path) -> None:
    tables = [
        build([block([1], DENSE[[1]])], tmp_path),
        build([block([1], DENSE[[1]])], tmp_path, "other"),
        build([block([1], DENSE[[1]])], tmp_path, num_rows=8),
        build([block([1], DENSE[[1]].astype(np.float16))], tmp_path, dtype="float16"),
        build([block([1], DENSE[[1]])], tmp_path, dim=(2, 2)),
        build([block([1], DENSE[[1]], side="user")], tmp_path, side="user"),
    ]
    assert len({table.content_key for table in tables}) == len(tables)
    assert len(os.listdir(tmp_path)) == len(tables)


@pytest.mark.parametrize("name", ["values.npy", "present.npy"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "another shape"])
def test_a_damaged_copy_is_built_again(tmp_path: Path, name: str, damage: str) -> None:
    blocks = [block(PRESENT, DENSE[PRESENT])]
    build(blocks, tmp_path)
    (folder,) = tmp_path.iterdir()
    if damage == "missing":
        (folder / name).unlink()
    elif damage == "truncated":
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    else:
        array = np.load(folder / name)
        np.save(folder / name, array.reshape(1, *array.shape[::-1]))
        manifest = folder / "features.json"
        sizes = manifest.read_text()
        assert str((folder / name).stat().st_size) in sizes  # headers are padded, so the size alone says nothing
    with pytest.warns(UserWarning, match="the feature table is built again"):
        table = build(blocks, tmp_path)
    np.testing.assert_array_equal(table.values[PRESENT], DENSE[PRESENT])
    build(forbidden(), tmp_path)


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


GOOD = block([1, 4], DENSE[[1, 4]])
BAD = {
    r"no column 'item'; it has \['vector'\]": GOOD.drop_columns(["item"]),
    r"no column 'vector'": GOOD.drop_columns(["vector"]),
    r"column 'item' holds string; wanted int32": with_column(GOOD, "item", pa.array(["1", "4"])),
    r"row 1: modality 'image': no item$": with_column(GOOD, "item", pa.array([1, None], pa.int32())),
    r"row 1: modality 'image': item=7 is outside 0…6": block([1, 7], DENSE[:2]),
    r"row 0: modality 'image': item=-1 is outside 0…6": block([-1, 6], DENSE[:2]),
    r"row 2: modality 'image': item=3 has a vector already": block([3, 5, 3], DENSE[:3]),
    r"column 'vector' holds float; wanted lists": with_column(GOOD, "vector", pa.array([1, 2], pa.float32())),
    r"vectors of double; wanted float32": with_column(GOOD, "vector", pa.array(DENSE[:2].astype(float).tolist())),
    r"vectors of halffloat; wanted float32": block([1, 4], DENSE[:2].astype(np.float16)),
    r"row 1: modality 'image': no vector": with_column(
        GOOD, "vector", pa.array([[1, 2, 3, 4], None], pa.list_(pa.float32()))
    ),
    r"row 1: modality 'image': a vector of 3 numbers; wanted 4": with_column(
        GOOD, "vector", pa.array([[1, 2, 3, 4], [1, 2, 3]], pa.list_(pa.float32()))
    ),
    r"row 0: modality 'image': a vector of 3 numbers; wanted 4": block([1, 4], DENSE[:2, :3]),
    r"row 1: modality 'image': the vector holds nan at place 2": block([1, 4], np.float32([[1] * 4, [1, 1, NAN, 1]])),
    r"row 0: modality 'image': the vector holds inf at place 0": block([1, 4], np.float32([[np.inf] * 4] * 2)),
    r"row 1: modality 'image': the vector holds nan at place 1": with_column(
        GOOD, "vector", pa.array([[1, 2, 3, 4], [1, None, 3, 4]], pa.list_(pa.float32(), 4))
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", BAD)
def test_bad_rows_are_named(tmp_path: Path, message: str) -> None:
    first = block([0, 2], DENSE[[0, 2]])
    with pytest.raises(DatasetError, match=rf"^memory, block 1.*{message}"):
        build([first, BAD[message]], tmp_path)
    (folder,) = tmp_path.iterdir()
    assert os.listdir(folder) == []


def test_an_item_that_comes_again_in_a_later_block(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"block 2, row 1: modality 'image': item=4 has a vector already"):
        build([GOOD, block([0], DENSE[:1]), block([2, 4], DENSE[:2])], tmp_path)


def test_places_in_files_are_named_where_blocks_tell_them(tmp_path: Path) -> None:
    rows = block([1, 9], DENSE[:2])
    told = rows.append_column("part", pa.array([1, 1], pa.int32())).append_column("row", pa.array([70, 71]))
    with pytest.raises(DatasetError, match=r"^b\.parquet, row 71: modality 'image': item=9 is outside"):
        build([told], tmp_path, parts=["a.parquet", "b.parquet"])


def test_too_few_vectors(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"memory: 2 vectors of modality 'image', 3 are wanted"):
        build([GOOD], tmp_path, num_vectors=3)


def test_tensor_columns_and_lists_of_any_length_are_lists(tmp_path: Path) -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(DENSE[[1, 4]])
    lists = pa.array(DENSE[[2, 3]].tolist(), pa.large_list(pa.float32()))
    table = build(
        [with_column(GOOD, "vector", tensors), with_column(block([2, 3], DENSE[:2]), "vector", lists)], tmp_path
    )
    np.testing.assert_array_equal(table.values[[1, 4, 2, 3]], DENSE[[1, 4, 2, 3]])


def test_hidden_rows_are_absent_and_zero(tmp_path: Path) -> None:
    table = table_of(tmp_path, DENSE, PRESENT)
    hidden = np.zeros(7, np.bool_)
    hidden[[0, 1, 3]] = True
    shown = table.without(hidden)
    wanted = np.zeros((7, 4), np.float32)
    wanted[[2, 6]] = DENSE[[2, 6]]
    for values, present in (shown.rows(), shown.rows(torch.arange(7))):
        np.testing.assert_array_equal(values.numpy(), wanted)
        assert np.flatnonzero(present.numpy()).tolist() == [2, 6]
    np.testing.assert_array_equal(shown.read(slice(None)), wanted)
    again = shown.without(np.arange(7) == 6)
    assert np.flatnonzero(again.present).tolist() == [2]
    assert float(again.rows(torch.tensor([0, 6]))[0].abs().sum()) == 0
    assert len({table.content_key, shown.content_key, again.content_key}) == 3
    assert shown.provenance["rows"] == 2
    np.testing.assert_array_equal(table.rows()[0][PRESENT].numpy(), DENSE[PRESENT])
    with pytest.raises(ValueError, match=r"hidden: bool of shape \(3,\); wanted bool of shape \(7,\)"):
        table.without(hidden[:3])


def test_an_index_outside_is_an_error(tmp_path: Path) -> None:
    table = table_of(tmp_path, DENSE, PRESENT)
    for place in (-1, 7):
        with pytest.raises((IndexError, RuntimeError), match="out of range"):
            table.rows(torch.tensor([place]))
