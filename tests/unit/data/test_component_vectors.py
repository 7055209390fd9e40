"""Vectors with components in Parquet, lists of lists: through jobs/prepare.py's ways into the dataset folder."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prepare_runs import random_log, run, write_log

from braidrec.config.prepare import FeaturesConfig
from braidrec.data import writer as writer_module
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.vectors import check_vectors, configured_source
from braidrec.features.reading import load_feature_table

RANDOM = np.random.default_rng(3)
DIM = 3
NESTED = pa.list_(pa.list_(pa.float32()))
KINDS = [
    NESTED,
    pa.large_list(pa.large_list(pa.float64())),
    pa.list_(pa.list_(pa.float16())),
    pa.list_(pa.list_(pa.float32(), DIM)),
]


def regions_of(items, counts):
    return {item: RANDOM.integers(-9, 9, (count, DIM)).tolist() for item, count in zip(items, counts, strict=True)}


def write(folder, regions, kind=NESTED, name="regions.parquet"):
    """Rows in groups of four, in the order given."""
    table = pa.table({"item_id": list(regions), "vector": pa.array(list(regions.values()), kind)})
    pq.write_table(table, folder / name, row_group_size=4)
    return str(folder / name)


def source_of(folder, regions, kind=NESTED):
    return configured_source("regions", FeaturesConfig(vectors=write(folder, regions, kind)))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("components") / "log", random_log(1))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_prepared_data_set_has_each_items_components(tmp_path, log, kind, monkeypatch):
    """Ragged ones, in the file's own order, of items that are not in the log too; written as several parts."""
    monkeypatch.setattr(writer_module, "FEATURE_BYTES_PER_PART", 400)
    items = [str(item) for item in RANDOM.permutation(30)]
    regions = regions_of(items, RANDOM.integers(1, 6, len(items)))
    regions["3"] = RANDOM.integers(-9, 9, (7, DIM)).tolist()
    output = tmp_path / "set"
    run(output, f"features.regions.vectors={write(tmp_path, regions, kind)}", log=log)
    folder = DatasetFolder.open(str(output))
    folder.verify()
    described = folder.modality("regions")
    assert (described.ragged, described.shape) == (True, (7, DIM))
    assert described.dtype == ("float16" if kind == KINDS[2] else "float32")
    assert described.num_vectors == folder.num_items and len(folder.parts("features/regions")) > 1
    table = load_feature_table(folder, "regions", cache=tmp_path / "cache")
    for index, item in enumerate(folder.item_ids().to_pylist()):
        wanted = np.zeros((7, DIM))
        wanted[: len(regions[item])] = regions[item]
        np.testing.assert_array_equal(np.asarray(table.values[index]).reshape(7, DIM), wanted)
        assert table.component_counts[index] == len(regions[item])


def test_equal_numbers_of_components_are_no_ragged_ones(tmp_path, log):
    regions = regions_of([str(item) for item in RANDOM.permutation(25)], [4] * 25)
    output = tmp_path / "set"
    run(output, f"features.regions.vectors={write(tmp_path, regions)}", log=log)
    folder = DatasetFolder.open(str(output))
    described = folder.modality("regions")
    assert (described.ragged, described.shape, described.dim) == (False, (4, DIM), 4 * DIM)
    items, vectors = folder.features("regions")
    names = folder.item_ids().to_pylist()
    np.testing.assert_array_equal(vectors, [regions[names[item]] for item in items])


NAN = float("nan")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ([[1.0, 2.0, 3.0], [1.0, 2.0]], r"regions\.parquet, row 5: component 1 has 2 numbers, the first one .* has 3"),
        ([[1.0, 2.0, 3.0], None], r"row 5: component 1 has 0 numbers"),
        ([[1.0, 2.0, 3.0], []], r"row 5: component 1 has 0 numbers"),
        ([], r"row 5: no component; leave the item out of the file"),
        (None, r"row 5: no component"),
        ([[1.0, 2.0, 3.0], [1.0, NAN, 3.0]], r"row 5: component 1 holds nan at place 1 \(1 such components among 8\)"),
        ([[1.0, None, 3.0]], r"row 5: component 0 holds nan at place 1"),
        ([[1.0, 2.0, 3.0], [1.0, 2.0, float("-inf")]], r"row 5: component 1 holds -inf at place 2"),
        ([[1.0, 2.0, 3.0, 4.0]], r"row 5: component 0 has 4 numbers"),
    ],
)
def test_broken_components_are_named(tmp_path, broken, message):
    """The sixth of eight rows, the second of its group; the others have two components each."""
    regions = regions_of("abcdefgh", [2] * 8)
    regions["f"] = broken
    source = source_of(tmp_path, regions)
    assert [chunk["start"] for chunk in source.chunks()] == [0, 4]
    assert source.components(source.chunks()[0]).counts.tolist() == [2, 2, 2, 2]
    with pytest.raises(DatasetError, match=message):
        source.components(source.chunks()[1])


@pytest.mark.parametrize("first", [[], None, [[]], [None]])
def test_a_first_vector_without_numbers(tmp_path, first):
    with pytest.raises(DatasetError, match="its first vector is missing or empty; leave out items without one"):
        source_of(tmp_path, {"a": first, "b": [[1.0, 2.0, 3.0]]})


def test_other_lists_are_refused(tmp_path):
    for kind, values in ((pa.list_(pa.list_(pa.int32())), [[[1]]]), (pa.list_(NESTED), [[[[1.0]]]])):
        pq.write_table(pa.table({"item_id": ["a"], "vector": pa.array(values, kind)}), tmp_path / "regions.parquet")
        with pytest.raises(DatasetError, match=r"wanted lists of floats, or lists of such lists"):
            configured_source("regions", FeaturesConfig(vectors=str(tmp_path / "regions.parquet")))


def test_a_preparation_refuses_before_it_writes(tmp_path, log):
    regions = regions_of([str(item) for item in range(25)], [2] * 25)
    regions["9"][1] = [1.0]
    output = tmp_path / "set"
    with pytest.raises(DatasetError, match=r"row 9: component 1 has 1 numbers"):
        run(output, f"features.regions.vectors={write(tmp_path, regions)}", log=log)
    assert not output.exists()


def test_numbers_of_components_are_known_after_all_were_looked_at(tmp_path, monkeypatch):
    """Whatever the order in which the chunks are looked at."""
    sources = [source_of(tmp_path, regions_of("abcdefghi", [2, 3, 2, 2, 5, 2, 2, 2, 4]))]
    monkeypatch.setattr(
        "braidrec.data.vectors.run_tasks",
        lambda inputs, task, schema: [answer for entry in reversed(inputs) for answer in task(entry)],
    )
    (known,) = check_vectors(sources, {"item": pa.array(list("abc"), pa.large_string())})
    assert (known.shape, known.ragged) == ((5, DIM), True)
