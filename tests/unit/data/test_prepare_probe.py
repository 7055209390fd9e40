"""A preparation says so when its vectors are not of its items."""

import json
from pathlib import Path

import numpy as np
import pytest

from braidrec.config.load import load_config
from braidrec.config.prepare import PrepareConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.prepare import prepare
from braidrec.data.stages import ray_session

pytestmark = pytest.mark.slow  # all of them wait for Ray to start

USERS, ITEMS, CLUSTERS = 80, 60, 6


@pytest.fixture(scope="module", autouse=True)
def ray_running():
    with ray_session():
        yield


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """Users like the items of one cluster; `true.npy` says which cluster an item is of, `shifted.npy` of another."""
    folder, random = tmp_path_factory.mktemp("raw"), np.random.default_rng(0)
    lines = ["user,item"]
    for user in range(USERS):
        own = np.flatnonzero(np.arange(ITEMS) % CLUSTERS == user % CLUSTERS)
        lines += [f"u{user},i{item}" for item in random.choice(own, 8, replace=False)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    vectors = np.eye(CLUSTERS, dtype=np.float32)[np.arange(ITEMS) % CLUSTERS]
    vectors += 0.1 * random.standard_normal(vectors.shape).astype(np.float32)
    np.save(folder / "true.npy", vectors)
    np.save(folder / "shifted.npy", vectors[random.permutation(ITEMS)])
    (folder / "ids.txt").write_text("".join(f"i{item}\n" for item in range(ITEMS)))
    return folder


def run(raw: Path, output: Path, *names: str):
    features = [f"features.{name}={{vectors: {raw}/{name}.npy, ids: {raw}/ids.txt}}" for name in names]
    source = f"source={{kind: table, paths: [{raw}/log.csv], columns: {{user: user, item: item}}}}"
    split = "split={kind: random_ratio, valid: 0.2, test: 0.1}"
    return prepare(load_config(PrepareConfig, [], [f"output={output}", source, split, *features]))


def test_vectors_of_other_items_are_noticed(raw, tmp_path):
    result = run(raw, tmp_path / "set", "true", "shifted")
    (note,) = result.description.notes
    assert note.startswith("features/shifted: valid interactions of 80 users are ranked no better")
    stored = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert stored["notes"] == [note]
    folder = DatasetFolder.open(result.path)
    folder.verify()
    assert folder.description == result.description


def test_vectors_of_these_items_pass_without_a_word(raw, tmp_path):
    assert run(raw, tmp_path / "set", "true").description.notes == ()
