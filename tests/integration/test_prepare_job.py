"""jobs/prepare.py as a user starts it, and the committed data set configurations on real data where it is at hand."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from braidrec.config.load import load_config
from braidrec.config.prepare import PrepareConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.prepare import prepare
from braidrec.data.stages import ray_session

REPOSITORY = Path(__file__).parents[2]
RAW = REPOSITORY.parent / "shared" / "data"


def run_job(*arguments):
    return subprocess.run(
        [sys.executable, "jobs/prepare.py", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=280
    )


@pytest.fixture(scope="module")
def ray_running():
    with ray_session():
        yield


def prepare_real(name, output, *overrides):
    if not (RAW / name).is_dir():
        pytest.skip(f"no {RAW / name}: the real data sets are not part of the repository")
    file = REPOSITORY / "configs" / "datasets" / f"{name.replace('-', '_')}.yaml"
    prepare(load_config(PrepareConfig, [file], [f"output={output}", *overrides]))
    folder = DatasetFolder.open(str(output))
    folder.verify()
    return folder


def rows(folder):
    return [folder.num_rows(split) for split in ("train", "valid", "test")]


def test_help_explains():
    job = run_job("--help")
    assert job.returncode == 0
    assert "--config FILE" in job.stdout
    assert "configs/datasets/tiktok.yaml" in job.stdout


def test_a_refusal_is_one_message_without_a_traceback(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user,item\n1,2\n")
    source = f"source={{kind: table, paths: [{log}]}}"
    for overrides, message in (
        ([f"output={tmp_path}/set", source], "no column 'user_id'"),
        ([source], "output: is required"),
        ([f"output={tmp_path}/set", source, "core.user=3"], "core.user: unknown key"),
    ):
        job = run_job(*(argument for override in overrides for argument in ("--set", override)))
        assert job.returncode == 2
        assert message in job.stderr
        assert "Traceback" not in job.stderr
        assert not (tmp_path / "set").exists()


@pytest.mark.slow
def test_the_job_ends_with_a_summary_and_the_next_command(tmp_path):
    log = tmp_path / "clicks.csv"
    lines = [f"u{user},i{item},{5 - item % 3}" for user in range(20) for item in range(user % 4, 12)]
    log.write_text("\n".join(["who,what,stars", *lines, lines[0]]) + "\n")
    source = f"source={{kind: table, paths: [{log}], columns: {{user: who, item: what, rating: stars}}}}"
    job = run_job("--set", f"output={tmp_path}/set", "--set", source, "--set", "min_rating=4")
    assert job.returncode == 0, job.stderr
    for text in ("users × items │ 20 × ", "1 rows: the same user and item again", "rows: rating below 4.0"):
        assert text in job.stdout
    assert (
        f"next: python jobs/train.py --config configs/models/lightgcn.yaml --set data.path={tmp_path}/set" in job.stdout
    )
    assert job.stderr == ""
    DatasetFolder.open(f"{tmp_path}/set").verify()


@pytest.mark.slow
def test_tiktok(tmp_path, ray_running):
    folder = prepare_real("tiktok", tmp_path / "set", f"source.path={RAW}/tiktok")
    assert (folder.num_users, folder.num_items) == (9308, 6710)
    assert rows(folder) == [59_541, 3_051, 6_130]
    ids = folder.item_ids().to_pylist()
    for name in ("image", "audio"):
        items, vectors = folder.features(name)
        raw = np.load(RAW / "tiktok" / f"{name}_feat.npy")
        assert vectors.dtype == np.float16
        assert (vectors == raw[[int(ids[item]) for item in items]]).all()


@pytest.mark.slow
def test_lfm2k(tmp_path, ray_running):
    folder = prepare_real("lfm2k", tmp_path / "set", f"source.path={RAW}/lfm2k")
    assert (folder.num_users, folder.num_items) == (1858, 1425)
    assert rows(folder) == [44_327, 4_799, 7_219]
    dims = {name: (entry.dim, entry.dtype, entry.coverage) for name, entry in folder.description.modalities.items()}
    assert dims == {
        "text": (384, "float32", 1.0),
        "audio_vggish": (128, "float32", 1.0),
        "audio_whisper": (512, "float32", 1.0),
    }


@pytest.mark.slow
def test_gowalla_has_no_validation_rows_and_says_so(tmp_path, ray_running):
    folder = prepare_real("gowalla", tmp_path / "set", f"source.path={RAW}/gowalla")
    assert (folder.num_users, folder.num_items) == (29_858, 40_981)
    assert rows(folder) == [810_128, 0, 217_242]
    assert folder.description.notes == ("valid is empty: the given split has none",)
    lines = (RAW / "gowalla" / "gowalla.inter").read_text().splitlines()[1:]
    users, items = folder.user_ids().to_pylist(), folder.item_ids().to_pylist()
    for label, split in ((0, "train"), (2, "test")):
        pairs = {f"{users[user]}\t{items[item]}\t{label}" for user, item in zip(*folder.edges(split), strict=True)}
        assert pairs == {line for line in lines if line.endswith(f"\t{label}")}


@pytest.mark.slow
def test_ml100k_twice_gives_the_same_bytes(tmp_path, ray_running):
    raw = RAW / "ml100k-posters"
    overrides = [
        f"source.paths=[{raw}/ratings.csv]", f"items.paths=[{raw}/items.csv]", f"media.image.folder={raw}/posters",
    ]  # fmt: skip
    folder = prepare_real("ml100k-posters", tmp_path / "a" / "set", *overrides)
    assert (folder.num_users, folder.num_items, sum(rows(folder))) == (943, 1682, 100_000)
    assert folder.description.media["image"].rows == 1663
    assert folder.column("train", "rating").mean() == pytest.approx(3.53, abs=0.02)
    assert folder.column("test", "timestamp").min() >= 874_724_710
    prepare_real("ml100k-posters", tmp_path / "b" / "set", *overrides)
    contents = [
        {str(file.relative_to(tmp_path / name)): file.read_bytes() for file in (tmp_path / name).rglob("*.*")}
        for name in ("a", "b")
    ]
    assert contents[0] == contents[1]
    assert json.loads(contents[0]["set/dataset.json"])["name"] == "set"
