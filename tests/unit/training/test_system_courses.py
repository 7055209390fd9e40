"""SelfCF, DualGNN, DRAGON, AMR and VMCF end to end: broken off and resumed, evaluated, recommended from, searched."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from design_points import build, small_folder

import braidrec
from braidrec.config.load import load_config, validate
from braidrec.config.run import RunConfig
from braidrec.config.sweep import SweepConfig
from braidrec.runs.finished import open_run
from braidrec.search.runs import Runs
from braidrec.training.local_worker import LocalWorker
from braidrec.training.result import TrainResult
from braidrec.training.step import TrainStep

pytestmark = pytest.mark.slow

PRESETS = Path(__file__).parents[3] / "configs" / "models"
SYSTEMS = {
    "selfcf": ("model.encoder.rate=0.3",),
    "dualgnn": ("model.user_graph.neighbours=5",),
    "dragon": ("training.propagation={mode: sampled, fan_outs: [3]}",),
    "amr": ("training.adversarial={start_epoch: 2, epsilon: 0.3}", "training.optimizer.mirror_gradient={every: 2}"),
    "vmcf": ("training.propagation={mode: sampled, fan_outs: [3]}",),
}
"""With what they draw at random drawn, which a resumed run must draw again."""
STEPS = 5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_folder(tmp_path_factory.mktemp("courses") / "data")


def train(name: str, run: str, data: Path, *, resume: bool = False) -> TrainResult:
    place = data.parent
    config = load_config(
        RunConfig,
        [PRESETS / f"{name}.yaml"],
        [
            f"name={run}", f"data.path={data}", f"storage={place / 'runs'}", f"cache={place / 'cache'}",
            "workers.num=0", "workers.threads=1", "tracking.enabled=false", "model.dim=6", "training.batch_size=64",
            "training.epochs=3",
            "evaluation.patience=null", "training.optimizer.learning_rate=0.02", *SYSTEMS[name],
        ],
    )  # fmt: skip
    return braidrec.train(config, resume=run if resume else None)


class BrokenOffError(Exception):
    pass


@pytest.mark.parametrize("name", SYSTEMS)
def test_from_training_to_lists(name: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = str(data.parent / "runs")
    whole = train(name, f"{name}-whole", data)
    left, run_step = STEPS + 2, TrainStep.run

    def run(step: TrainStep, *arguments: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise BrokenOffError
        return run_step(step, *arguments)

    monkeypatch.setattr(TrainStep, "run", run)
    with pytest.raises(BrokenOffError):
        train(name, f"{name}-broken", data)
    monkeypatch.setattr(TrainStep, "run", run_step)
    resumed = train(name, f"{name}-broken", data, resume=True)
    assert resumed.metrics == whole.metrics and resumed.best_epoch == whole.best_epoch
    runs = [open_run(f"{name}-{kind}", storage) for kind in ("whole", "broken")]
    assert (runs[0].ranker.item_vectors() == runs[1].ranker.item_vectors()).all()

    done = braidrec.evaluate(f"{name}-broken", storage=storage)
    assert done.result.metrics["recall@20"] == whole.metrics["test/recall@20"]
    if name == "vmcf":
        assert done.result.metrics["rmse"] == whole.metrics["test/rmse"]
    lists = braidrec.recommend(f"{name}-broken", storage=storage, k=4)
    table = pq.read_table(lists.recommendations)
    best = runs[0].ranker.score(torch.tensor([0]))[0]
    first = [row for row in table.to_pylist() if row["user_id"] == runs[0].data.user_ids()[0].as_py()]
    assert 0 < len(first) <= 4
    items = runs[0].data.item_ids().to_pylist()
    for row in first:
        assert row["score"] == pytest.approx(float(best[items.index(row["item_id"])]), rel=1e-5)


SPACES = {
    "selfcf": {"model.encoder.view": ["dropout", "edge_dropout"], "model.encoder.rate": [0.1, 0.5]},
    "dualgnn": {"model.user_graph.neighbours": [3, 9]},
    "dragon": {"model.item_graph.layers": [1, 2], "model.user_graph.layers": [1, 2]},
    "amr": {"training.adversarial.epsilon": [0.1, 0.3], "training.adversarial.target": ["features", "embeddings"]},
    "vmcf": {"model.encoder.relation_weight": [0.0, 1.0], "objective.loss.link": ["identity", "sigmoid"]},
}


@pytest.mark.parametrize("name", SPACES)
def test_every_corner_of_a_search_can_be_built(name: str, data: Path, tmp_path: Path) -> None:
    place = tmp_path / "sweep"
    sweep = validate(
        SweepConfig,
        {
            "name": name,
            "base": [str(PRESETS / f"{name}.yaml")],
            "run": {
                "data": {"path": str(data)}, "storage": str(place), "cache": str(place / "cache"),
                "workers": {"num": 0}, "tracking": {"enabled": False}, "training": {"epochs": 120},
            },
            "space": {key: {"choice": values} for key, values in SPACES[name].items()},
            "budget": {"trials": 4},
        },
        "sweep",
    )  # fmt: skip
    runs = Runs.of(sweep)
    runs.check(sweep)
    configs = [runs.config(point) for _, point in runs.space.corners()]
    assert len(configs) >= 2
    for config in configs:
        build(config, LocalWorker(torch.device("cpu"), lambda event: None))
