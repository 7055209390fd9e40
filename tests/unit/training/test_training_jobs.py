"""The three jobs around a run, from their command lines: what they print, and how they exit."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from training_runs import SMALL, planted_folder

from braidrec.training.environment import MARK

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    planted_folder(folder / "data")
    return folder


def arguments(place: Path, *overrides: str) -> list[str]:
    """Of jobs/train.py."""
    places = (f"data.path={place / 'data'}", f"storage={place / 'runs'}", f"cache={place / 'cache'}")
    return [part for override in (*places, *SMALL, *overrides) for part in ("--set", override)]


def job(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, *words: str
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a job that is run in this process."""
    monkeypatch.setenv(MARK, "1")
    monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", *words])
    monkeypatch.setattr(sys, "path", list(sys.path))
    capsys.readouterr()
    try:
        runpy.run_path(str(ROOT / "jobs" / f"{name}.py"), run_name="__main__")
        status = 0
    except SystemExit as stop:
        status = int(stop.code or 0)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


def test_train_evaluate_recommend(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = job(monkeypatch, capsys, "train", *arguments(place, "name=whole", "training.epochs=2"))
    assert status == 0
    assert "learning_rate: 0.02" in out and "regulariser: 0.0001" in out
    assert "recall@20" in out
    of_run = ["--set", "run=whole", "--set", f"storage={place / 'runs'}"]
    status, out, _ = job(monkeypatch, capsys, "evaluate", *of_run, "--set", "split=valid")
    assert status == 0
    assert "ndcg@10" in out
    assert (place / "runs/whole/evaluations/valid-mask-train.json").is_file()
    words = [*of_run, "--set", "users=[user-01, user-02]", "--set", "k=3", "--set", "vectors=true"]
    status, out, _ = job(monkeypatch, capsys, "recommend", *words)
    assert status == 0
    assert "6 rows for 2 users" in out and "item vectors:" in out
    table = pq.read_table(place / "runs/whole/recommendations/recommendations.parquet")
    assert table["user_id"].to_pylist() == ["user-01"] * 3 + ["user-02"] * 3
    status, out, _ = job(monkeypatch, capsys, "train", *arguments(place, "training.epochs=3"), "--resume", "whole")
    assert status == 0


REFUSED = [
    ("train", ["--set", "training.epoch=3"], "training.epoch: unknown key. Did you mean epochs?"),
    ("train", ["--set", "training.epochs"], "expected key=value"),
    ("train", ["--config", "nowhere.yaml"], "nowhere.yaml: no such configuration file"),
    ("train", ["--set", "data.path=/nowhere"], "/nowhere: no such folder"),
    ("train", ["--set", "evaluation.monitor=recall@7"], "evaluation.monitor='recall@7' is not computed"),
    ("train", ["--resume", "never"], "no run 'never' in"),
    ("train", ["--resume", "../x"], "no run '../x' in"),
    ("evaluate", ["--set", "run=never"], "no run 'never' in"),
    ("evaluate", ["--set", "split=valid"], "run"),
    ("recommend", ["--set", "run=never", "--set", "top=5"], "top"),
]


@pytest.mark.parametrize(("name", "words", "message"), REFUSED, ids=[" ".join([r[0], *r[1]]) for r in REFUSED])
def test_refusals_are_one_message_and_status_2(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: list[str],
    message: str,
) -> None:
    before = sorted((place / "runs").iterdir()) if (place / "runs").is_dir() else []
    whole = [*arguments(place), *words] if name == "train" else ["--set", f"storage={place / 'runs'}", *words]
    status, _, err = job(monkeypatch, capsys, name, *whole)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert (sorted((place / "runs").iterdir()) if (place / "runs").is_dir() else []) == before


def test_a_run_that_diverges_fails_with_its_reason_last(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = arguments(
        place, "name=hot", "training.optimizer={kind: sgd, learning_rate: 1.0e+30}", "objective.regulariser=1"
    )
    status, _, err = job(monkeypatch, capsys, "train", *words)
    assert status == 1
    assert err.splitlines()[-1].startswith("the run failed: epoch 1, step ")
    assert "before the update" in err.splitlines()[-1]
    assert not (place / "runs/hot/lease.json").exists()


@pytest.mark.parametrize("name", ["train", "evaluate", "recommend"])
def test_help_explains(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    status, out, _ = job(monkeypatch, capsys, name, "--help")
    assert status == 0
    assert f"python jobs/{name}.py" in out and "--set" in out and "Exit status" in out


@pytest.mark.slow
def test_a_job_that_is_told_to_end(place: Path) -> None:
    """A process of its own, which starts itself again with the environment for training: 128 + SIGTERM."""
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    words = arguments(place, "name=long", "training.epochs=100000", "evaluation.patience=null")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "jobs/train.py"), *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 200
        while not (place / "runs/long/metrics.jsonl").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        assert f"{MARK}=1" in Path(f"/proc/{process.pid}/environ").read_text().split("\0")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert err.decode().splitlines()[-1] == "stopped by SIGTERM"
    assert not (place / "runs/long/lease.json").exists()
