"""A run that trains a modality's vectors: they start as extracted, move, are kept in the checkpoint and evaluated."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from training_runs import run_config

import braidrec
from braidrec.config.load import ConfigError, load_config
from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.features.reading import load_feature_table
from braidrec.training.build import build_parts
from braidrec.training.local_worker import LocalWorker

USE = 'model.modalities.use=["*"]'
TRAIN_IMAGE = "model.modalities.trainable=[image]"
HIDE_IMAGE = "model.self_supervision.a={kind: reconstruct, modality: image}"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "data"
    generate_planted(str(path), num_users=80, num_items=60, num_interactions=1_000, num_topics=4, coverage=0.8)
    return path


def extracted(data: Path, place: Path) -> tuple[np.ndarray, np.ndarray]:
    table = load_feature_table(DatasetFolder.open(str(data)), "image", cache=place / "other-cache")
    return np.asarray(table.values, dtype=np.float32), np.asarray(table.present)


def test_start_movement_and_evaluation(data: Path, tmp_path: Path) -> None:
    config = run_config(data, tmp_path, USE, TRAIN_IMAGE, "name=one", "training.epochs=2")
    vectors, present = extracted(data, tmp_path)
    parts = build_parts(config, DatasetFolder.open(str(data)), LocalWorker(torch.device("cpu"), lambda event: None))
    assert np.array_equal(parts.tables["features/image"].all_rows().numpy(), vectors)
    assert "features/text" not in parts.tables

    result = braidrec.train(config)
    folder = Path(result.checkpoint.removeprefix("file://"))
    (tensors,) = [found for file in sorted(folder.glob("*.safetensors")) if "table:user" in (found := load_file(file))]
    moved = np.abs(tensors["table:features/image"] - vectors).max(1) > 1e-4
    degree = np.bincount(DatasetFolder.open(str(data)).edges("train")[1], minlength=len(present))
    assert moved[present & (degree > 0)].all() and not moved[~present].any()
    again = braidrec.evaluate(result.folder, split="test")
    assert again.result.metrics["recall@20"] == pytest.approx(result.metrics["test/recall@20"], abs=1e-6)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (("model.modalities.trainable=[imagee]",), "imagee"),
        ((TRAIN_IMAGE, "model.modalities.missing=mean"), "missing=mean"),
        ((TRAIN_IMAGE, "model.encoder={kind: vbpr_mm}"), "modalities"),
        ((TRAIN_IMAGE, HIDE_IMAGE), r"a: 'image' is trained .* sources"),
    ],
)
def test_refused_before_work_starts(data: Path, tmp_path: Path, overrides: tuple[str, ...], names: str) -> None:
    wanted = [f"data.path={data}", f"storage={tmp_path}", "workers.num=0", USE, *overrides]
    with pytest.raises(ConfigError, match=names):
        braidrec.train(load_config(RunConfig, [], wanted))
