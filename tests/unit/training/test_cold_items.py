"""Items that training never shows: only their modalities can rank them, best where their untrained ID is left out."""

from pathlib import Path

import numpy as np
import pytest
from training_runs import run_config

import braidrec
from braidrec.config.load import ConfigError
from braidrec.data.description import Split
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.runs.finished import open_run
from braidrec.training.result import TrainResult

SETTINGS = (
    "training.epochs=25", "model.dim=16", "training.batch_size=512", "evaluation.patience=null", "evaluation.at=[10]",
    "evaluation.monitor=null", "evaluation.every=25",
)  # fmt: skip
FUSED = ("model.modalities.use=['*']",)  # early, sum, cold_id=drop
COSINE = ("objective.loss.kind=in_batch_softmax",)
# Inner products favour long vectors, and each further hop makes only those of warm items longer.
ONE_HOP = ("model.encoder.layers=1",)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cold") / "data"
    generate_planted(
        str(path), num_users=150, num_items=120, num_interactions=3_000, num_topics=6, coverage=0.9, cold_items=0.25,
        feature_noise=0.5,
    )  # fmt: skip
    return path


def cold_recall(result: TrainResult) -> float:
    cold = result.slices["item_warmth"]["cold"]
    assert cold["num_held_out"] == sum(group["num_held_out"] for group in result.slices["item_warmth"].values()) > 100
    return cold["recall@10"]


def _items_of_users(folder: DatasetFolder, split: Split) -> dict[int, set[int]]:
    owned: dict[int, set[int]] = {user: set() for user in range(folder.num_users)}
    for user, item in zip(*(column.tolist() for column in folder.edges(split)), strict=True):
        owned[user].add(item)
    return owned


def popularity_recall(data: Path) -> float:
    """Of a list of the most popular items: the cold ones, of degree 0, come after all others, by index."""
    folder = DatasetFolder.open(str(data))
    _, items = folder.edges("train")
    order = np.argsort(-np.bincount(items, minlength=folder.num_items), kind="stable").tolist()
    seen, wanted = (_items_of_users(folder, split) for split in ("train", "test"))
    recalls = []
    for user, held_out in wanted.items():
        if held_out:
            best = [item for item in order if item not in seen[user]][:10]
            recalls.append(len(held_out & set(best)) / len(held_out))
    return float(np.mean(recalls))


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "least"), [(COSINE, 0.5), (ONE_HOP, 0.3)], ids=["cosine", "bpr, one hop"])
def test_modalities_rank_cold_items(data: Path, tmp_path: Path, settings: tuple[str, ...], least: float) -> None:
    alone = cold_recall(braidrec.train(run_config(data, tmp_path / "alone", *SETTINGS, *settings)))
    fused = cold_recall(braidrec.train(run_config(data, tmp_path / "fused", *SETTINGS, *settings, *FUSED)))
    assert fused > least
    assert fused > 3 * max(alone, popularity_recall(data))


@pytest.mark.slow
def test_the_untrained_id_is_better_left_out_or_generated(data: Path, tmp_path: Path) -> None:
    """Initial IDs as large as what is learned hide what the modalities say."""
    recall = {}
    for choice in ("keep", "drop", "generated"):
        settings = (*SETTINGS, *FUSED, *ONE_HOP, "model.initial_std=1.0", f"model.fusion.cold_id={choice}")
        recall[choice] = cold_recall(braidrec.train(run_config(data, tmp_path / choice, *settings)))
    assert min(recall["drop"], recall["generated"]) > recall["keep"] + 0.1


@pytest.mark.slow
def test_cold_items_are_told_by_what_they_have(data: Path, tmp_path: Path) -> None:
    groups = braidrec.train(run_config(data, tmp_path, *SETTINGS, *FUSED, *COSINE)).slices["item_modalities"]
    assert groups["image+text"]["num_held_out"] > groups["image"]["num_held_out"] > 0
    assert groups["image+text"]["recall@10"] > max(groups["image"]["recall@10"], groups["text"]["recall@10"])


def test_length_is_nothing_to_a_cosine(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cold_length=match has no effect"):
        braidrec.train(run_config(data, tmp_path, *SETTINGS, *FUSED, *COSINE, "model.fusion.cold_length=match"))


@pytest.mark.slow
def test_cold_vectors_as_long_as_others_are_found_behind_two_hops(data: Path, tmp_path: Path) -> None:
    """Their direction is right, as the recall says once length no longer decides."""
    two_hops = ("model.encoder.layers=2", *FUSED)
    kept, matched = (
        braidrec.train(run_config(data, tmp_path, *SETTINGS, *two_hops, f"model.fusion.cold_length={length}"))
        for length in ("keep", "match")
    )
    assert cold_recall(matched) > 2 * cold_recall(kept) and cold_recall(matched) > 3 * popularity_recall(data)
    folder = DatasetFolder.open(str(data))
    cold = np.bincount(folder.edges("train")[1], minlength=folder.num_items) == 0
    before, after = (open_run(run.folder).ranker.item_vectors().numpy() for run in (kept, matched))
    np.testing.assert_array_equal(before[~cold], after[~cold])
    length = np.linalg.norm(after, axis=1)
    assert length[cold].mean() == pytest.approx(length[~cold].mean(), rel=1e-5)
    ratio = length[cold] / np.linalg.norm(before[cold], axis=1)
    np.testing.assert_allclose(after[cold], before[cold] * ratio.mean(), rtol=1e-4, atol=1e-6)
