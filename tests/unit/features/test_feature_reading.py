"""A data set's vectors as a table: by this process and by Ray Data, and what damaged files are told to be."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from feature_folders import block, replace_parts, write_features

from braidrec.data import writer
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.stages import ray_session
from braidrec.features import reading
from braidrec.features.reading import load_feature_table

RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.standard_normal((40, 5)).astype(np.float16)
ITEMS = np.sort(RANDOM.permutation(60)[:40])
PROFILES = RANDOM.standard_normal((3, 2)).astype(np.float32)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetFolder:
    """40 vectors in six part files, which are read three rows at a time."""
    monkeypatch.setattr(writer, "FEATURE_BYTES_PER_PART", 7 * 5 * 2)
    monkeypatch.setattr(reading, "BATCH_BYTES", 3 * 5 * 2)
    opened = write_features(
        tmp_path / "set", items={"image": (ITEMS, IMAGES)}, users={"profile": ([4, 0, 2], PROFILES)}, counts=(6, 60)
    )
    assert len(opened.parts("features/image")) == 6
    return opened


def check_images(table) -> None:
    wanted = np.zeros((60, 5), np.float16)
    wanted[ITEMS] = IMAGES
    np.testing.assert_array_equal(table.values, wanted)
    assert np.flatnonzero(table.present).tolist() == ITEMS.tolist()


def test_read_by_this_process(tmp_path: Path, folder: DatasetFolder) -> None:
    table = load_feature_table(folder, "image", cache=tmp_path / "cache")
    check_images(table)
    assert table.provenance == {"kind": "data set", "modality": "image", "vectors": {"model": "hand"}}


def test_vectors_of_users(tmp_path: Path, folder: DatasetFolder) -> None:
    table = load_feature_table(folder, "profile", cache=tmp_path / "cache", side="user")
    assert np.flatnonzero(table.present).tolist() == [0, 2, 4]
    np.testing.assert_array_equal(table.values[[4, 0, 2]], PROFILES)
    with pytest.raises(DatasetError, match=r"no item modality 'profile'; it has \['image'\]"):
        load_feature_table(folder, "profile", cache=tmp_path / "cache")


def test_the_key_is_that_of_the_vectors_alone(tmp_path: Path, folder: DatasetFolder) -> None:
    """Another data set with the same vectors finds the table; changed vectors do not."""
    first = load_feature_table(folder, "image", cache=tmp_path / "cache")
    other = write_features(tmp_path / "other", items={"image": (ITEMS, IMAGES)}, counts=(9, 60))
    assert load_feature_table(other, "image", cache=tmp_path / "cache").content_key == first.content_key
    changed = write_features(tmp_path / "changed", items={"image": (ITEMS, IMAGES + 1)}, counts=(6, 60))
    assert load_feature_table(changed, "image", cache=tmp_path / "cache").content_key != first.content_key


def with_rows(tmp_path: Path, *tables: pa.Table, count: int = 4) -> DatasetFolder:
    return replace_parts(tmp_path / "set", "image", tables, count)


SECOND = IMAGES[:2].copy()
SECOND[1, 3] = np.inf
BROKEN = {
    r"image/part-00001\.parquet, row 1: modality 'image': item=60 is outside 0…59": block([1, 60], IMAGES[:2]),
    r"image/part-00001\.parquet, row 0: modality 'image': item=7 has a vector already": block([7, 1], IMAGES[:2]),
    r"image/part-00001\.parquet, row 1: modality 'image': the vector holds inf at place 3": block([1, 2], SECOND),
    r"image/part-00001\.parquet: modality 'image': no column 'item'; it has \['user', 'vector'\]": block(
        [1, 2], IMAGES[:2], side="user"
    ),
    r"image/part-00001\.parquet: modality 'image': column 'vector' holds .*float\W.*, dataset\.json says": block(
        [1, 2], IMAGES[:2].astype(np.float32)
    ),
    r"image/part-00001\.parquet: modality 'image': column 'vector' holds .*\[4\], dataset\.json says": block(
        [1, 2], IMAGES[:2, :4]
    ),
    r"features/image: 3 vectors of modality 'image', 4 are wanted": block([1], IMAGES[:1]),
}


@pytest.mark.parametrize("message", BROKEN)
def test_files_that_do_not_fit_are_named(tmp_path: Path, folder: DatasetFolder, message: str) -> None:
    broken = with_rows(tmp_path, block([7, 9], IMAGES[:2]), BROKEN[message])
    with pytest.raises(DatasetError, match=message):
        load_feature_table(broken, "image", cache=tmp_path / "cache")


def damage(folder: DatasetFolder) -> None:
    path = Path(folder.path) / "features/image/part-00002.parquet"
    content = bytearray(path.read_bytes())
    content[-30:-4] = b"\xff" * 26
    path.write_bytes(bytes(content))


def test_a_damaged_file_is_named(tmp_path: Path, folder: DatasetFolder) -> None:
    damage(folder)
    with pytest.raises(DatasetError, match=r"part-00002\.parquet: not readable as Parquet"):
        load_feature_table(folder, "image", cache=tmp_path / "cache")


@pytest.mark.slow
def test_read_by_ray_data(tmp_path: Path, folder: DatasetFolder) -> None:
    """The same table, the same messages."""
    with ray_session():
        check_images(load_feature_table(folder, "image", cache=tmp_path / "ray", use_ray=True))
        local = load_feature_table(folder, "image", cache=tmp_path / "local")
        ray_made, here_made = (next((tmp_path / name).iterdir()) for name in ("ray", "local"))
        for file in ("values.npy", "present.npy"):
            assert (ray_made / file).read_bytes() == (here_made / file).read_bytes()
        assert load_feature_table(folder, "image", cache=tmp_path / "ray").content_key == local.content_key
        damage(folder)
        with pytest.raises(DatasetError, match=r"part-00002\.parquet: not readable as Parquet"):
            load_feature_table(folder, "image", cache=tmp_path / "again", use_ray=True)
        for message in (name for name in BROKEN if "already" not in name):  # which one is second is Ray's affair
            broken = with_rows(tmp_path, block([7, 9], IMAGES[:2]), BROKEN[message])
            with pytest.raises(DatasetError, match=message):
                load_feature_table(broken, "image", cache=tmp_path / "again", use_ray=True)
