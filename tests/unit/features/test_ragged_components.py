"""Items with different numbers of regions, from the dataset folder to what a model is handed."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from feature_folders import layout, table_of, write_features

from braidrec.data import writer as writer_module
from braidrec.data.description import SPLITS, ProtocolDescription
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.stages import ray_session
from braidrec.data.writer import DatasetWriter
from braidrec.features import reading
from braidrec.features.build import build_feature_table
from braidrec.features.reading import load_feature_table
from braidrec.features.table import LENGTHS, FeatureTable
from braidrec.features.transform import L2Norm, transform_table
from braidrec.training.features import FeatureSet

RANDOM = np.random.default_rng(5)
LENGTH_OF = {0: 3, 2: 1, 3: 2, 7: 3, 8: 1, 9: 2}
ITEMS = np.array([7, 0, 3, 9, 8, 2])
LENGTHS_GIVEN = np.array([LENGTH_OF[item] for item in ITEMS])
REGIONS = RANDOM.standard_normal((6, 3, 4)).astype(np.float16)
"""What stands behind an item's last region is no zero here: it must not be stored."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetFolder:
    """Three part files of two items, which are read an item at a time."""
    monkeypatch.setattr(writer_module, "FEATURE_BYTES_PER_PART", 2 * 12 * 2)
    monkeypatch.setattr(reading, "BATCH_BYTES", 1)
    writer = DatasetWriter.begin(str(tmp_path / "set"), seed=1)
    writer.write_users(pa.array(["u0"]))
    writer.write_items(pa.array([f"i{index}" for index in range(10)]))
    for split in SPLITS:
        writer.write_split(split, {"user": np.zeros(1, np.int32), "item": np.zeros(1, np.int32)})
    writer.write_features("regions", ITEMS, REGIONS, {"model": "hand"}, lengths=LENGTHS_GIVEN)
    writer.finish(name="tiny", protocol=ProtocolDescription(kind="given", seed=1), options={})
    return DatasetFolder.open(str(tmp_path / "set"))


def check(table: FeatureTable) -> None:
    assert table.shape == (3, 4) and table.dim == 12
    wanted = np.zeros((10, 3, 4), np.float16)
    for item, length, regions in zip(ITEMS, LENGTHS_GIVEN, REGIONS, strict=True):
        wanted[item, :length] = regions[:length]
    np.testing.assert_array_equal(table.values, wanted.reshape(10, 12))
    assert table.component_counts.tolist() == [LENGTH_OF.get(item, 0) for item in range(10)]


def test_through_the_dataset_folder(tmp_path: Path, folder: DatasetFolder) -> None:
    described = folder.modality("regions")
    assert (described.ragged, described.shape, described.num_vectors) == (True, (3, 4), 6)
    assert len(folder.parts("features/regions")) == 3
    check(load_feature_table(folder, "regions", cache=tmp_path / "cache"))
    check(load_feature_table(folder, "regions", cache=tmp_path / "cache"))  # mapped


@pytest.mark.slow
def test_read_by_ray_data(tmp_path: Path, folder: DatasetFolder) -> None:
    with ray_session():
        check(load_feature_table(folder, "regions", cache=tmp_path / "cache", use_ray=True))


def test_what_a_model_is_handed(tmp_path: Path, folder: DatasetFolder) -> None:
    """Numbers of components: ragged, where all have as many, and of single vectors; hidden ones have none."""
    ragged = load_feature_table(folder, "regions", cache=tmp_path / "cache")
    even = table_of(tmp_path / "cache", RANDOM.standard_normal((10, 2, 5)).astype(np.float32), [1, 2, 4], "frames")
    single = table_of(tmp_path / "cache", RANDOM.standard_normal((10, 5)).astype(np.float32), [1, 2], "text")
    lost = ragged.without(np.arange(10) == 7)
    features = FeatureSet({"regions": lost, "frames": even, "text": single}, torch.device("cpu"))
    assert features.shapes == {"regions": (3, 4), "frames": (2, 5), "text": (5,)}
    asked = torch.tensor([9, 7, 0, 0, 1])
    for name, wanted in (("regions", [2, 0, 3, 3, 0]), ("frames", [0, 0, 0, 0, 2]), ("text", [0, 0, 0, 0, 1])):
        counts, present = features.fetch(f"components/{name}", asked)
        assert counts.squeeze(-1).tolist() == wanted
        assert present.tolist() == [count > 0 for count in wanted]
    assert features.fetch("components/frames", None)[0].squeeze(-1).tolist() == [0, 2, 2, 0, 2, *[0] * 5]


@pytest.mark.parametrize("numbers", [3, 0, 16, 9])
def test_part_of_a_component_or_too_many(tmp_path: Path, numbers: int) -> None:
    block = pa.table({"item": pa.array([4], pa.int32()), "vector": pa.array([[1.0] * numbers], pa.list_(pa.float32()))})
    with pytest.raises(
        DatasetError, match=rf"row 0: modality 'image': {numbers} numbers; wanted one to 3 components of 4"
    ):
        build_feature_table([block], cache=tmp_path, key="k", layout=layout(6, (3, 4), ragged=True))


@pytest.mark.parametrize("numbers", [3, 16])
def test_a_damaged_folder_names_the_item(folder: DatasetFolder, numbers: int) -> None:
    part = Path(folder.path) / folder.parts("features/regions")[0]
    table = pq.read_table(part)
    vectors = table.column("vector").to_pylist()
    vectors[1] = [0.5] * numbers
    damaged = pa.array(vectors, table.schema.field("vector").type)
    pq.write_table(table.set_column(table.column_names.index("vector"), "vector", damaged), part)
    item = table.column("item")[1].as_py()
    with pytest.raises(DatasetError, match=rf"item {item} has {numbers} numbers; wanted one to 3 components of 4 each"):
        folder.features("regions")


def test_no_transform_pretends_that_padding_is_data(tmp_path: Path, folder: DatasetFolder) -> None:
    table = load_feature_table(folder, "regions", cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="modality 'regions' has more components in one item than in another"):
        transform_table(table, [L2Norm()], fit_on=np.ones(10, np.bool_), cache=tmp_path / "cache")


def test_a_damaged_count_is_built_again(tmp_path: Path, folder: DatasetFolder) -> None:
    load_feature_table(folder, "regions", cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").rglob(LENGTHS)
    file.unlink()
    with pytest.warns(UserWarning, match="damaged"):
        check(load_feature_table(folder, "regions", cache=tmp_path / "cache"))


def test_vectors_of_one_size_are_what_they_were(tmp_path: Path) -> None:
    plain = write_features(tmp_path / "plain", items={"image": ([1, 2], REGIONS[:2])})
    table = load_feature_table(plain, "image", cache=tmp_path / "cache")
    assert not plain.modality("image").ragged and table.lengths is None
    np.testing.assert_array_equal(table.values[[1, 2]], REGIONS[:2].reshape(2, 12))
