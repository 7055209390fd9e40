"""`jobs/compare.py` on runs that were really trained, as a user does it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import braidrec
from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.data.planted import generate_planted
from braidrec.training.result import TrainResult

JOB = Path(__file__).parents[3] / "jobs" / "compare.py"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("compared")
    generate_planted(
        str(place / "data"), num_users=60, num_items=45, num_interactions=800, num_topics=4,
        modalities={"image": 6, "text": 4}, coverage=0.8,
    )  # fmt: skip
    return place


def config(files: list[Path], *overrides: str) -> RunConfig:
    return load_config(RunConfig, files, overrides)


@pytest.fixture(scope="module")
def trained(place: Path) -> dict[str, TrainResult]:
    """Two seeds of early and late fusion."""
    return {
        f"{timing}-{seed}": braidrec.train(
            config(
                [], f"name={timing}-{seed}", f"seed={seed}", f"model.fusion.timing={timing}",
                f"data.path={place / 'data'}", f"storage={place / 'runs'}", f"cache={place / 'cache'}", "workers.num=0",
                "workers.threads=1", "model.dim=8", "model.encoder.layers=1", "model.modalities.use=['*']",
                "training.epochs=3", "training.batch_size=256", "training.optimizer.learning_rate=0.02",
                "evaluation.at=[5, 20]", "tracking.system_metrics=false",
            )
        )
        for timing in ("early", "late") for seed in (1, 2)
    }  # fmt: skip


def test_the_figures_are_those_of_training(place: Path, trained: dict[str, TrainResult]) -> None:
    braidrec.evaluate("early-1", storage=str(place / "runs"), drop_modality={"image": 0.5}, at=(5, 20))
    found = braidrec.compare(
        experiment="braidrec", storage=str(place / "runs"), metric="ndcg@5", report=str(place / "report.html")
    )
    assert {each.label for each in found.contenders} == {"timing=early", "timing=late"}
    for each in found.contenders:
        timing = each.label.partition("=")[2]
        runs = [trained[f"{timing}-{seed}"] for seed in (1, 2)]
        assert each.test.values == pytest.approx([run.metrics["test/ndcg@5"] for run in runs], rel=1e-12)
        assert each.validation.values == tuple(run.metrics["valid/recall@20"] for run in runs)
        assert each.seeds == ("1", "2")
        assert each.cost.parameters > (60 + 45) * 8  # the tables of users and items, and projectors
        assert each.cost.seconds > 0 and each.cost.memory_mb > 10
        recalls = [run.slices["item_modalities"]["image+text"]["recall@5"] for run in runs]
        assert each.slices["item_modalities"]["image+text"].values == tuple(recalls)
        activity = [group["ndcg@5"] for group in runs[0].slices["user_activity"].values()]
        assert [figure.values[0] for figure in each.slices["user_activity"].values()] == activity
    (pair,) = found.pairs
    means = {
        timing: np.mean([
            pq.read_table(place / "runs" / f"{timing}-{seed}" / "per_user" / "test")["ndcg@5"].to_numpy()
            for seed in (1, 2)
        ], axis=0)
        for timing in ("early", "late")
    }  # fmt: skip
    better, worse = (means[label.partition("=")[2]] for label in (pair.better, pair.worse))
    assert pair.statistics.difference == pytest.approx((better - worse).mean())
    early = next(each for each in found.contenders if each.label == "timing=early")
    assert list(early.without) == [("image", 0.5)]
    assert "plot-missing-0" in (place / "report.html").read_text()


def test_the_job_and_the_winner_again(place: Path, trained: dict[str, TrainResult]) -> None:
    done = subprocess.run(
        [sys.executable, JOB, "--experiment", "braidrec", "--set", f"storage={place / 'runs'}"],
        capture_output=True, text=True, timeout=250, check=False, cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "is best on validation" in done.stdout and done.stderr == ""
    report = place / "runs" / "comparisons" / "braidrec.html"
    assert report.is_file() and str(report) in done.stdout
    again = braidrec.train(config([report.with_suffix(".winner.yaml")], "name=winner-again"))
    assert again.metrics in [run.metrics for run in trained.values()]


def test_the_job_refuses_what_it_cannot_read(place: Path, trained: dict[str, TrainResult]) -> None:
    done = subprocess.run(
        [sys.executable, JOB, "--experiment", "braidrek", "--set", f"storage={place / 'runs'}"],
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "Did you mean 'braidrec'?" in done.stderr and "Traceback" not in done.stderr
