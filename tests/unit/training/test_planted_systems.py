"""Planted data: every system, and early and late fusion, beat popularity, and order items that training never shows.

DVBPR looks at raw images, which this data set has none of: on planted pictures it is in test_dvbpr_run.py.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from training_runs import popularity_recall

import braidrec
from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.data.storage import Location
from braidrec.training.build import build_parts
from braidrec.training.local_worker import LocalWorker
from braidrec.training.loop import Loop
from braidrec.training.validation import encode_all

pytestmark = pytest.mark.slow

PRESETS = Path(__file__).parents[3] / "configs" / "models"
USE = "model.modalities.use=['*']"
MODELS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    **{name: (name, ()) for name in (
        "vbpr", "vbpr_mm", "mmgcn", "grcn", "slmrec", "bm3", "freedom", "mgcn", "lattice", "mmgcf", "layergcn",
        "selfcf", "dragon", "dualgnn",
    )},
    "amr": ("amr", ("training.adversarial.start_epoch=8",)),
    "vmcf": (None, (USE, "model.encoder={kind: vmcf, content_dim: 16}")),
    "early": (None, (USE,)),
    "early, attention, concat": (None, (USE, "model.fusion={combine: concat, weighting: attention}")),
    "late": (None, (USE, "model.fusion.timing=late")),
    "late, scores": (None, (USE, "model.fusion={timing: late, of: scores, weighting: attention}")),
    "late, aggregated": (None, (USE, "model.fusion={timing: late, user_side: aggregated, combine: mean}")),
    "ngcf": (None, (USE, "model.encoder={kind: ngcf, layers: 2}")),
    "graphsage": (None, (USE, "model.encoder={kind: graphsage}")),
    "gat": (None, (USE, "model.encoder={kind: gat}")),
}  # fmt: skip
IDS_ALONE = ("bm3", "layergcn", "selfcf")
"""Those that rank without looking at modalities."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "data"
    generate_planted(str(path), num_users=150, num_items=120, num_interactions=3_000, num_topics=6, feature_noise=0.5)
    return path


@pytest.fixture(scope="module")
def popularity(data: Path) -> float:
    return popularity_recall(data)


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of the items is never shown, half of them for the test; all have their modalities."""
    path = tmp_path_factory.mktemp("cold") / "data"
    generate_planted(
        str(path), num_users=150, num_items=120, num_interactions=3_000, num_topics=6, feature_noise=0.5, coverage=1.0,
        cold_items=0.3,
    )  # fmt: skip
    return path


def config_of(name: str, data: Path, place: Path) -> RunConfig:
    preset, overrides = MODELS.get(name, (name, ()))
    common = (
        f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.num=0",
        "workers.threads=1", "tracking.enabled=false", "model.dim=16", "training.epochs=14", "training.batch_size=512",
        "training.optimizer.learning_rate=0.02", "evaluation.patience=null", "evaluation.every=14",
        "evaluation.at=[10, 20]", "model.initial_std=0.1",
    )  # fmt: skip
    return load_config(RunConfig, [PRESETS / f"{preset}.yaml"] if preset else [], [*common, *overrides])


def order_of_cold_items(config: RunConfig, place: Path) -> float:
    """How often a cold test item that a user took is scored above one that the user did not; by chance 0.5."""
    folder = DatasetFolder.open(config.data.path)
    worker = LocalWorker(torch.device("cpu"), lambda event: None)
    parts = build_parts(config, folder, worker)
    Loop(config, parts, worker, Location.of(str(place / "run"))).run()
    vectors = encode_all(parts).vectors.numpy()
    users, items = folder.edges("test")
    cold_items = np.unique(items)
    assert not np.isin(cold_items, folder.edges("train")[1]).any() and len(cold_items) > 10
    shares = []
    for user in np.unique(users):
        taken = np.isin(cold_items, items[users == user])
        scores = vectors[folder.num_users + cold_items] @ vectors[user]
        shares += [np.mean(score > scores[~taken]) for score in scores[taken]]
    return float(np.mean(shares))


@pytest.mark.parametrize("name", MODELS)
def test_clearly_better_than_popularity(name: str, data: Path, popularity: float, tmp_path: Path) -> None:
    result = braidrec.train(config_of(name, data, tmp_path))
    assert 0.1 < popularity < 0.45
    assert result.metrics["test/recall@20"] > popularity + 0.35


@pytest.mark.parametrize("name", [name for name in MODELS if name not in IDS_ALONE])
def test_modalities_order_cold_items(name: str, cold: Path, tmp_path: Path) -> None:
    found = order_of_cold_items(config_of(name, cold, tmp_path), tmp_path)
    assert found > 0.7


@pytest.mark.parametrize("preset", ["bm3", "lightgcn"])
def test_ids_alone_cannot_order_cold_items(preset: str, cold: Path, tmp_path: Path) -> None:
    """BM3's modalities teach its IDs, but what it ranks by are these alone: an item without training stays unknown."""
    assert abs(order_of_cold_items(config_of(preset, cold, tmp_path), tmp_path) - 0.5) < 0.1
