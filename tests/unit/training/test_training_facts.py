"""What a run leaves and reports: metrics, phases, facts, curves of the test split, best epoch and patience."""

import json
from pathlib import Path

import pytest
from training_runs import planted_folder, run_config, write_folder

import braidrec
from braidrec.training.events import EpochEnd, Event, Finished, Progress, Started
from braidrec.training.result import TrainResult

TRAIN_METRICS = {
    "train/loss", "train/loss_term", "train/regulariser_term", "train/interactions_per_second",
    "train/input_nodes_per_step", "train/learning_rate", "train/seconds",
}  # fmt: skip
PHASES = {"data", "sampling", "forward_backward", "communication", "optimizer", "evaluation", "checkpoint"}


class Recorder:
    """A listener that keeps all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def handle(self, event: Event) -> None:
        self.events.append(event)

    @property
    def epochs(self) -> list[EpochEnd]:
        return [event for event in self.events if isinstance(event, EpochEnd)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_folder(tmp_path_factory.mktemp("planted") / "data")


def train(data: Path, place: Path, *overrides: str) -> tuple[TrainResult, Recorder]:
    recorder = Recorder()
    return braidrec.train(run_config(data, place, *overrides), listeners=(recorder,)), recorder


def test_events_metrics_and_phases(data: Path, tmp_path: Path) -> None:
    result, seen = train(data, tmp_path, "name=one", "training.epochs=3")
    started = seen.events[0]
    assert isinstance(started, Started) and isinstance(seen.events[-1], Finished)
    rows = json.loads((data / "dataset.json").read_text())["splits"]["train"]["rows"]
    assert (started.first_epoch, started.epochs, started.interactions_per_epoch) == (1, 3, rows)
    assert started.steps_per_epoch == -(-rows // 256)
    assert set(started.facts) == {"propagation", "tables", "interactions", "compute", "parameters"}
    assert started.facts["parameters"] == f"{(80 + 60) * 8:,} trained"  # users and items, 8 columns
    assert started.facts["compute"] == "1 worker(s) × 1 thread(s) on cpu"
    assert [epoch.epoch for epoch in seen.epochs] == [1, 2, 3]
    for epoch in seen.epochs:
        names = set(epoch.metrics)
        assert names >= TRAIN_METRICS
        phases = {name.removeprefix("seconds/") for name in names if name.startswith("seconds/")}
        # A checkpoint is written after its epoch was reported, and counted to the next one.
        assert phases == (PHASES - {"checkpoint"} if epoch.epoch == 1 else PHASES)
        assert {"valid/recall@10", "valid/ndcg@20", "memory/peak_mb"} <= names
        assert not any(name.startswith("test/") for name in names)
        assert epoch.metrics["train/loss"] == pytest.approx(
            epoch.metrics["train/loss_term"] + epoch.metrics["train/regulariser_term"]
        )
        assert epoch.metrics["train/input_nodes_per_step"] == 140
    assert set(result.seconds) == PHASES
    finished = seen.events[-1]
    assert finished.metrics == result.metrics
    assert {"valid/recall@20", "test/recall@20"} <= set(result.metrics)
    assert all(event.done <= event.total for event in seen.events if isinstance(event, Progress))


def test_the_run_folder(data: Path, tmp_path: Path) -> None:
    result, seen = train(data, tmp_path, "name=one")
    folder = tmp_path / "runs" / "one"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "config.yaml", "lease.lock", "metrics.jsonl", "per_user", "result.json", "run.json",
    ]  # fmt: skip
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["epoch"], line["best"], line["metrics"]) for line in lines] == [
        (epoch.epoch, epoch.best, dict(epoch.metrics)) for epoch in seen.epochs
    ]

    def no_constants(name: str) -> None:
        pytest.fail(f"result.json holds {name}, which is no JSON")

    stored = json.loads((folder / "result.json").read_text(), parse_constant=no_constants)
    assert stored["metrics"] == result.metrics
    assert stored["best_epoch"] == result.best_epoch
    assert Path(result.checkpoint).name == f"epoch-{result.best_epoch:05d}" and Path(result.checkpoint).is_dir()
    assert (result.mlflow_run_id, result.tracking_uri) == (None, None)


def test_the_best_epoch_is_the_one_that_is_tested(data: Path, tmp_path: Path) -> None:
    result, seen = train(
        data, tmp_path, "training.epochs=8", "evaluation.watch_test=true", "evaluation.monitor=ndcg@10"
    )
    values = [epoch.metrics["valid/ndcg@10"] for epoch in seen.epochs]
    assert result.best_epoch == 1 + values.index(max(values))
    assert [epoch.best for epoch in seen.epochs] == [
        value > max(values[:number], default=-1.0) for number, value in enumerate(values)
    ]
    best = seen.epochs[result.best_epoch - 1].metrics
    # watch_test: what the curve showed at the best epoch is the test result, to the last bit.
    for name, value in result.metrics.items():
        assert best[name] == value


def test_watching_the_test_split_changes_nothing(data: Path, tmp_path: Path) -> None:
    plain, _ = train(data, tmp_path, "name=plain")
    watched, seen = train(data, tmp_path, "name=watched", "evaluation.watch_test=true")
    assert all("test/recall@20" in epoch.metrics for epoch in seen.epochs)
    assert watched.metrics == plain.metrics


def test_patience(data: Path, tmp_path: Path) -> None:
    """Coverage does not grow once everything is recommended: the run ends two validations after its best."""
    overrides = ("training.epochs=30", "evaluation.patience=2", "evaluation.monitor=coverage@20", "evaluation.every=2")
    result, seen = train(data, tmp_path, *overrides)
    validated = [epoch for epoch in seen.epochs if "valid/coverage@20" in epoch.metrics]
    assert [epoch.epoch for epoch in validated] == [2 * (number + 1) for number in range(len(validated))]
    assert result.epochs_run == result.best_epoch + 4 < 30
    assert validated[-3].best and not validated[-2].best and not validated[-1].best


def test_a_metric_that_should_be_low(data: Path, tmp_path: Path) -> None:
    overrides = ("objective.loss.kind=rating_mse", "model.encoder.kind=mf", "evaluation.monitor=rmse")
    result, seen = train(data, tmp_path, *overrides, "training.epochs=6", "evaluation.watch_test=true")
    values = [epoch.metrics["valid/rmse"] for epoch in seen.epochs]
    assert result.best_epoch == 1 + values.index(min(values))
    assert result.metrics["valid/rmse"] == min(values)


def test_without_a_monitor_the_last_epoch_is_kept(data: Path, tmp_path: Path) -> None:
    result, seen = train(
        data, tmp_path, "evaluation.monitor=null", "evaluation.patience=null", "evaluation.every=3",
        "training.checkpoint_every=3", "training.epochs=5", "name=one",
    )  # fmt: skip
    assert result.best_epoch == result.epochs_run == 5
    assert [epoch.epoch for epoch in seen.epochs if "valid/recall@20" in epoch.metrics] == [3, 5]
    assert sorted(path.name for path in (tmp_path / "runs/one/checkpoints").iterdir()) == ["epoch-00003", "epoch-00005"]


@pytest.mark.parametrize("held_out", [["valid"], ["test"], []])
def test_data_without_some_of_the_splits(tmp_path: Path, held_out: list[str]) -> None:
    users = [user for user in range(8) for _ in range(4)]
    items = [(user + step) % 9 for user in range(8) for step in range(4)]
    splits = {"train": {"user": users, "item": items}}
    splits |= {name: {"user": [0, 1], "item": [7, 8]} for name in held_out}
    data = write_folder(tmp_path / "data", splits, num_users=8, num_items=9)
    unwatched = () if "valid" in held_out else ("evaluation.monitor=null", "evaluation.patience=null")
    result, seen = train(data, tmp_path, "training.epochs=2", "training.batch_size=16", *unwatched)
    assert {name.partition("/")[0] for name in result.metrics} == set(held_out)
    assert len(seen.epochs) == result.epochs_run == 2
    assert (Path(result.folder) / "per_user").exists() == ("test" in held_out)
    assert bool(result.slices) == ("test" in held_out)


def test_learning_rate_of_the_epochs(data: Path, tmp_path: Path) -> None:
    """Linear to zero over 3 epochs of 4 steps each: the last step of each is reported."""
    result, seen = train(
        data, tmp_path, "training.epochs=3", "training.optimizer={schedule: linear, learning_rate: 0.12}"
    )
    assert result.epochs_run == 3
    steps = seen.events[0].steps_per_epoch
    wanted = [0.12 * (1 - (epoch * steps - 1) / (3 * steps)) for epoch in (1, 2, 3)]
    assert [epoch.metrics["train/learning_rate"] for epoch in seen.epochs] == pytest.approx(wanted)


def test_the_same_seed_gives_the_same_run_and_another_another(data: Path, tmp_path: Path) -> None:
    first, again, other = (
        train(data, tmp_path, f"name={name}", f"seed={seed}", "training.propagation.mode=sampled")[1].epochs
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    losses = [[epoch.metrics["train/loss"] for epoch in run] for run in (first, again, other)]
    assert losses[0] == losses[1]
    assert not set(losses[0]) & set(losses[2])


def test_planted_data_is_made_on_first_use(tmp_path: Path) -> None:
    overrides = ("data.planted={users: 30, items: 25, interactions: 300}", "training.epochs=1")
    result, _ = train(tmp_path / "made", tmp_path, *overrides)
    digest = json.loads((tmp_path / "made" / "dataset.json").read_text())
    assert digest["num_users"] == 30
    again, _ = train(tmp_path / "made", tmp_path, *overrides)
    assert again.metrics == result.metrics
