"""Planted data: every recommender must find the hidden topics; ratings must be better predicted than by their mean."""

from collections.abc import Mapping
from math import sqrt
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from training_runs import popularity_recall, run_config, write_folder

import braidrec
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.training.result import TrainResult

SETTINGS = ("training.epochs=12", "model.dim=16", "training.batch_size=512", "evaluation.patience=null")
RANKERS: Mapping[str, tuple[str, ...]] = {
    "bpr-mf": ("model.encoder.kind=mf", "training.epochs=25", "training.optimizer.learning_rate=0.05"),
    "bpr-mf, official sampler, row-wise adagrad": (
        "model.encoder.kind=mf", "training.order=uniform_users", "training.optimizer.kind=adagrad",
        "training.optimizer.learning_rate=0.3", "training.epochs=20",
    ),
    "bpr-mf, popular negatives": (
        "model.encoder.kind=mf", "training.epochs=25", "training.optimizer.learning_rate=0.05",
        "objective.negatives={kind: popularity, per_positive: 3}",
    ),
    "lightgcn, full": ("training.propagation.mode=full",),
    "lightgcn, full, bf16": ("training.propagation.mode=full", "training.propagation.precision=bf16"),
    "lightgcn, neighbour": ("training.propagation={mode: sampled, fan_outs: [5, 5]}",),
    "lightgcn, neighbour, targets excluded, sparse adam": (
        "training.propagation={mode: sampled, fan_outs: [8, 5], exclude_targets: true}",
        "training.optimizer.kind=sparse_adam",
    ),
    "lightgcn, labor": ("training.propagation={mode: sampled, sampler: labor, fan_outs: [5, 5]}",),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planted") / "data"
    generate_planted(str(path), num_users=150, num_items=120, num_interactions=3_000, num_topics=6, modalities={})
    return path


@pytest.fixture(scope="module")
def popularity(data: Path) -> float:
    return popularity_recall(data)


def train(data: Path, place: Path, *overrides: str) -> TrainResult:
    return braidrec.train(run_config(data, place, *SETTINGS, *overrides))


@pytest.mark.slow
@pytest.mark.parametrize("overrides", RANKERS.values(), ids=RANKERS.keys())
def test_rankers_clearly_beat_popularity(
    data: Path, popularity: float, tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    result = train(data, tmp_path, *overrides)
    assert 0.1 < popularity < 0.45
    assert result.metrics["test/recall@20"] > popularity + 0.4
    losses = (Path(result.folder) / "metrics.jsonl").read_text()
    assert losses.count("\n") == result.epochs_run


def rating_folder(path: Path) -> Path:
    """Ratings made of a mean, a bias for each side, a taste in two dimensions and a little noise."""
    rng = np.random.default_rng(8)
    num_users, num_items = 60, 50
    user_bias, item_bias = rng.normal(0, 0.4, num_users), rng.normal(0, 0.4, num_items)
    taste, traits = rng.normal(0, 0.8, (num_users, 2)), rng.normal(0, 0.8, (num_items, 2))
    truth = 3.4 + user_bias[:, None] + item_bias[None, :] + taste @ traits.T
    users, items = np.nonzero(rng.random((num_users, num_items)) < 0.6)
    ratings = truth[users, items] + rng.normal(0, 0.1, len(users))
    label = rng.choice(3, len(users), p=[0.8, 0.1, 0.1])
    splits = {
        name: {"user": users[label == number], "item": items[label == number], "rating": ratings[label == number]}
        for number, name in enumerate(("train", "valid", "test"))
    }
    return write_folder(path, splits, num_users=num_users, num_items=num_items)


@pytest.mark.slow
@pytest.mark.parametrize("biases", ["true", "false"])
def test_ratings_beat_their_mean(tmp_path: Path, biases: str) -> None:
    data = rating_folder(tmp_path / "data")
    folder = DatasetFolder.open(str(data))
    train_ratings, test_ratings = folder.column("train", "rating"), folder.column("test", "rating")
    of_mean = sqrt(np.mean((test_ratings - train_ratings.mean()) ** 2))
    result = train(
        data, tmp_path, "model.encoder.kind=mf", f"model.encoder.biases={biases}", "model.dim=4",
        "objective.loss.kind=rating_mse", "objective.regulariser=0.02", "evaluation.monitor=rmse",
        "training.epochs=30", "training.optimizer.learning_rate=0.03", "training.batch_size=128",
    )  # fmt: skip
    assert result.metrics["test/rmse"] < 0.25 * of_mean
    assert result.metrics["test/mae"] < result.metrics["test/rmse"]


def test_weights_decide_what_is_learned(tmp_path: Path) -> None:
    """Every pair twice, rated 1 and 5: the prediction goes where the weight is."""
    users, items = (grid.reshape(-1) for grid in np.meshgrid(range(12), range(6), indexing="ij"))
    heavy = {"user": users, "item": items, "rating": np.full(72, 5.0), "weight": np.full(72, 9.0)}
    light = {"user": users, "item": items, "rating": np.full(72, 1.0), "weight": np.full(72, 1.0)}
    both = {name: np.concatenate([heavy[name], light[name]]) for name in heavy}
    held_out = {"user": [0], "item": [6], "rating": [5.0]}
    data = write_folder(tmp_path / "data", {"train": both, "valid": held_out}, num_users=12, num_items=7)
    predicted = {}
    for use in ("true", "false"):
        result = train(
            data, tmp_path, "model.encoder.kind=mf", "model.encoder.biases=true", "objective.loss.kind=rating_mse",
            f"objective.use_weights={use}", "objective.regulariser=0", "evaluation.monitor=null", f"name=weights-{use}",
            "training.batch_size=36", "training.optimizer.learning_rate=0.05", "evaluation.at=[3]",
        )  # fmt: skip
        done = braidrec.recommend(result.folder, k=6, exclude="none", output=str(tmp_path / use))
        rows = pq.read_table(done.recommendations).to_pylist()
        predicted[use] = np.mean([row["score"] for row in rows if row["item_id"] != "item-6"])
    # The weighted mean of 5 and 1 is 4.6, the plain one 3.
    assert abs(predicted["true"] - 4.6) < 0.15
    assert abs(predicted["false"] - 3.0) < 0.15
