"""Systems that look at whole histories, through the one loop: two workers, broken off, evaluated, recommended from."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from history_world import PRESETS, history_config, write_history_folder
from process_pair import Pair, both
from safetensors.torch import load_file
from training_runs import popularity_recall
from two_process_models import train_two_steps

import braidrec
from braidrec.config.load import validate
from braidrec.config.run import RunConfig
from braidrec.config.sweep import SweepConfig
from braidrec.runs.evaluate import evaluate
from braidrec.runs.recommend import recommend
from braidrec.search.runs import Runs
from braidrec.training.local_worker import LocalWorker
from braidrec.training.step import TrainStep

pytestmark = pytest.mark.slow

NOTHING_DRAWN = {
    "acf": (),
    "addvae": ("model.encoder.dropout=0.0", "model.encoder.gumbel=false", "model.encoder.std=1.0e-12"),
}
"""What a rank draws for its own rows is its own: here nothing is drawn."""
DRAWN = {"acf": ("model.encoder.history=5", "training.batch_size=64"), "addvae": ("training.batch_size=8",)}
LEARNING = {
    "acf": ("training.optimizer.learning_rate=0.02", "training.batch_size=128", "training.epochs=14"),
    "addvae": ("training.optimizer.learning_rate=0.01", "training.batch_size=16", "training.epochs=28"),
}
SYSTEMS = tuple(NOTHING_DRAWN)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("histories") / "data"
    write_history_folder(path)
    return path


def short(name: str, data: Path, run: str, *overrides: str) -> RunConfig:
    """Three epochs in which as much is drawn as can be."""
    return history_config(
        name, data, f"name={run}", "training.epochs=3", "evaluation.patience=null",
        *DRAWN[name], *overrides,
    )  # fmt: skip


@pytest.mark.parametrize("tables", ["replicated", "sharded"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_two_learn_what_one_does(pair: Pair, name: str, tables: str, data: Path) -> None:
    config = history_config(
        name, data, "training.batch_size=32", f"training.tables={tables}", "evaluation.monitor=null",
        "evaluation.patience=null", "training.optimizer={kind: sgd, learning_rate: 0.5}", "model.initial_std=0.3",
        *NOTHING_DRAWN[name],
    )  # fmt: skip
    alone = train_two_steps(LocalWorker(torch.device("cpu"), lambda event: None), config, data.parent)
    ranks = pair.run(train_two_steps, both(config), both(data.parent))
    assert not [rank for rank in ranks if isinstance(rank, Exception)], ranks
    for step, wanted in enumerate(alone["losses"]):
        for term, value in wanted.items():
            np.testing.assert_allclose(ranks[0]["losses"][step][term], value, rtol=1e-7, atol=1e-10, err_msg=term)
    assert min(alone["moved"].values()) > 1e-5
    for key, value in alone["after"].items():
        np.testing.assert_array_equal(ranks[0]["after"][key], ranks[1]["after"][key], err_msg=key)
        np.testing.assert_allclose(ranks[0]["after"][key], value, rtol=1e-6, atol=1e-8, err_msg=key)


class BrokenOffError(Exception):
    pass


@pytest.mark.parametrize("name", SYSTEMS)
def test_broken_off_resumed_evaluated_and_recommended_from(
    name: str, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In mid-epoch; in the end all tensors and metrics are as if nothing had been, and the finished run scores the same
    when it is opened again."""
    whole = braidrec.train(short(name, data, f"{name}-whole"))
    original, left = TrainStep.run, [19]

    def run(step: TrainStep, *arguments: object) -> object:
        if not left[0]:
            raise BrokenOffError
        left[0] -= 1
        return original(step, *arguments)

    broken = short(name, data, f"{name}-broken")
    monkeypatch.setattr(TrainStep, "run", run)
    with pytest.raises(BrokenOffError):
        braidrec.train(broken)
    monkeypatch.setattr(TrainStep, "run", original)
    resumed = braidrec.train(broken, resume=f"{name}-broken")
    assert dict(resumed.metrics) == dict(whole.metrics)
    tensors = [load_file(Path(result.checkpoint) / "tensors.safetensors") for result in (whole, resumed)]
    assert all(torch.equal(tensors[0][key], value) for key, value in tensors[1].items())
    storage = str(data.parent / "runs")
    options = {"storage": storage, "output": str(tmp_path), "k": 5, "exclude": "train"}
    result = recommend(f"{name}-whole", **options)
    table = pq.read_table(result.recommendations)
    assert table.num_rows == result.num_rows == 60 * 5
    assert np.isfinite(table.column("score").to_numpy()).all()
    assert whole.example is not None
    own = table.filter(pc.equal(table.column("user_id"), whole.example.user_id))
    assert own.column("item_id").to_pylist() == [item for item, _ in whole.example.items]
    np.testing.assert_allclose(own.column("score"), [score for _, score in whole.example.items], rtol=1e-5)
    again = evaluate(f"{name}-whole", storage=storage, split="test", output=str(tmp_path))
    for metric in ("recall@10", "ndcg@20"):
        assert again.result.metrics[metric] == pytest.approx(whole.metrics[f"test/{metric}"], rel=1e-9)


@pytest.mark.parametrize("name", SYSTEMS)
def test_clearly_better_than_popularity(name: str, data: Path) -> None:
    config = history_config(
        name, data, f"name={name}-learns", "evaluation.patience=null", "evaluation.every=7", "model.dim=16",
        *LEARNING[name],
    )  # fmt: skip
    result = braidrec.train(config)
    assert 0.2 < popularity_recall(data) < 0.6
    assert result.metrics["test/recall@10"] > 0.6


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [("acf", "model.encoder.history", [5, 50]), ("addvae", "model.encoder.prototypes", [2, 8])],
)
def test_a_sweep_takes_it_as_a_base(name: str, key: str, values: list[int], data: Path) -> None:
    """All points are looked at, models built for the data set's shapes, before anything is read or started."""
    settings = {
        "base": [str(PRESETS / f"{name}.yaml")], "run": {"data": {"path": str(data)}}, "algorithm": {"kind": "grid"},
        "space": {key: {"choice": values}},
    }  # fmt: skip
    sweep = validate(SweepConfig, settings, "test")
    assert Runs.of(sweep).check(sweep).path == str(data)
