"""The look at features, by loops: probe, norms, twins, neighbours, and the sheet that shows them."""

import numpy as np
import pyarrow as pa
import pytest

from braidrec.config.extract import LimitsConfig, QualityConfig, TextFieldsConfig
from braidrec.data.description import ProtocolDescription
from braidrec.data.folder import DatasetFolder
from braidrec.data.readers import table_files
from braidrec.data.writer import DatasetWriter
from braidrec.features.extract import probe
from braidrec.features.extract.manifest import Manifest, plan_rows
from braidrec.features.extract.probe import Probe, content_probe, sampled_features, suspicious
from braidrec.features.extract.quality import Shown, look_at
from braidrec.features.extract.sheet import token_on

USERS, ITEMS, DIM = 70, 40, 5


def planted(path, *, per_file: int | None = None, monkeypatch=None) -> tuple[DatasetFolder, np.ndarray, np.ndarray]:
    """Users like what lies near a direction of their own; the last two items have no vector, two share one."""
    random = np.random.default_rng(3)
    vectors = random.standard_normal((ITEMS, DIM)).astype(np.float32) * 3
    vectors[7] = vectors[8]
    tastes = random.standard_normal((USERS, DIM))
    liked = np.argsort(-tastes @ vectors.T, axis=1)[:, :9]
    writer = DatasetWriter.begin(str(path), seed=1)
    writer.write_users(pa.array([f"u{user}" for user in range(USERS)]))
    titles = [f"title <{item}>" for item in range(ITEMS)]
    writer.write_items(pa.array([f"i{item}" for item in range(ITEMS)]), {"title": pa.array(titles)})
    for split, columns in (("train", liked[:, :6]), ("valid", liked[:, 6:8]), ("test", liked[:, 8:])):
        users = np.repeat(np.arange(USERS, dtype=np.int32), columns.shape[1])
        writer.write_split(split, {"user": users, "item": columns.reshape(-1).astype(np.int32)})
    items = np.arange(ITEMS - 2, dtype=np.int32)
    writer.write_features("m", items, vectors[:-2], {})
    writer.write_features("shifted", items, np.roll(vectors[:-2], 11, 0), {})
    writer.finish(name="d", protocol=ProtocolDescription(kind="given", seed=1), options={})
    return DatasetFolder.open(str(path)), items, vectors[:-2]


def naive_recall(folder, items, vectors, users):
    """The definition, user by user and item by item."""
    unit = {int(item): vector / np.linalg.norm(vector) for item, vector in zip(items, vectors, strict=True)}
    pairs = {split: list(zip(*(column.tolist() for column in folder.edges(split)), strict=True)) for split in
             ("train", "valid")}  # fmt: skip
    recalls = []
    for user in users:
        own = {item for u, item in pairs["train"] if u == user and item in unit}
        wanted = {item for u, item in pairs["valid"] if u == user and item in unit} - own
        if not own or not wanted:
            continue
        mean = np.mean([unit[item] for item in own], 0)
        scores = sorted(((float(mean @ unit[item]), -item) for item in unit if item not in own), reverse=True)
        best = {-item for _, item in scores[:20]}
        recalls.append(len(wanted & best) / len(wanted))
    return float(np.mean(recalls)), len(recalls)


def test_the_probe_is_its_definition_and_notices_shifted_items(tmp_path):
    folder, items, vectors = planted(tmp_path / "set")
    found = content_probe(folder, items, vectors)
    recall, users = naive_recall(folder, items, vectors, range(USERS))
    assert found.recall == pytest.approx(recall, abs=1e-6)
    assert (found.users, found.split) == (users, "valid")
    shifted = np.roll(vectors, 11, 0)
    wrong = content_probe(folder, items, shifted)
    assert wrong.recall == pytest.approx(naive_recall(folder, items, shifted, range(USERS))[0], abs=1e-6)
    assert found.recall > 0.9 > 0.75 > wrong.recall
    chance = 20 / (len(items) - 6)
    assert found.shuffled == pytest.approx(chance, abs=0.12)
    assert found.is_meaningful and not wrong.is_meaningful
    assert list(suspicious(folder)) == ["shifted"]


def test_a_few_users_and_few_items_are_not_judged(tmp_path, monkeypatch):
    folder, items, vectors = planted(tmp_path / "set")
    assert content_probe(folder, items[:20], vectors[:20]) is None
    monkeypatch.setattr(probe, "LEAST_USERS", USERS + 1)
    assert suspicious(folder) == {}


def test_a_sample_is_of_the_file_s_own_vectors(tmp_path, monkeypatch):
    monkeypatch.setattr("braidrec.data.writer.FEATURE_BYTES_PER_PART", 4 * DIM * 7)
    folder, items, vectors = planted(tmp_path / "set")
    assert len(folder.parts("features/m")) == 6
    found, rows = sampled_features(folder, "m", 100)
    np.testing.assert_array_equal(found, items)
    np.testing.assert_array_equal(rows, vectors)
    found, rows = sampled_features(folder, "m", 9)
    assert len(found) == 9 and (np.diff(found) > 0).all()
    np.testing.assert_array_equal(rows, vectors[found])


def test_figures_and_neighbours_are_those_of_a_loop(tmp_path):
    folder, items, vectors = planted(tmp_path / "set")
    (file,) = table_files([f"{folder.path}/items.parquet"])
    manifest = Manifest(
        files=(file,), id_column="item", by_index=True, form="text", columns=("title",), text=TextFieldsConfig()
    )
    shown = Shown(manifest=manifest, plan=plan_rows(manifest, folder), medium="text", limits=LimitsConfig())
    quality = look_at(folder, "m", QualityConfig(examples=ITEMS, neighbours=3), shown, "12345678")
    norms = sorted(float(np.sqrt(sum(x * x for x in vector))) for vector in vectors.tolist())
    assert quality.norms == pytest.approx((norms[0], (norms[18] + norms[19]) / 2, norms[-1]), rel=1e-5)
    assert (quality.same, quality.compared) == (2, len(items))
    sheet = (tmp_path / "set/extracted/m/sheet.html").read_text()
    assert token_on(folder.location.child("extracted/m/sheet.html")) == "12345678"
    assert token_on(folder.location.child("extracted/m/none.html")) is None
    rows = sheet.split('<div class="row">')[1:]
    assert len(rows) == len(items)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for item, row in zip(items, rows, strict=True):
        cosine = unit @ unit[item]
        cosine[item] = -2
        best = np.argsort(-cosine, kind="stable")[:3]
        cards = row.split('<div class="card')[1:]
        titles = [card.split("<b>")[1].split("</b>")[0] for card in cards]
        assert titles[0] == f"i{item}"
        twins = {"i7": "i8"}  # of two equal ones either may come first
        assert sorted(twins.get(t, t) for t in titles[1:]) == sorted(twins.get(f"i{o}", f"i{o}") for o in best)
        assert f"title &lt;{item}&gt;" in cards[0]
        assert all(f"<small>{cosine[other]:.3f}</small>" in card for other, card in zip(best, cards[1:], strict=True))


def test_a_probe_says_so_where_it_is_no_better_than_chance():
    assert Probe(recall=0.2, shuffled=0.1, users=9, split="valid").is_meaningful
    assert not Probe(recall=0.14, shuffled=0.1, users=9, split="valid").is_meaningful
