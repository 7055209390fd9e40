"""A training worker killed with SIGKILL in mid-epoch: the run goes on by itself and ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 6
SETTINGS = [
    "data.planted={users: 3000, items: 1500, interactions: 60000}",
    "workers.num=2",
    f"training.epochs={EPOCHS}",
    "training.batch_size=256",
    "evaluation.patience=null",
    "tracking.enabled=false",
]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def start(folder: Path, name: str) -> "subprocess.Popen[str]":
    settings = [*SETTINGS, f"data.path={folder / 'data'}", f"storage={folder / 'runs'}", f"cache={folder / 'cache'}"]
    command = [sys.executable, str(ROOT / "jobs" / "train.py"), "--config", str(ROOT / "configs" / "quickstart.yaml")]
    for setting in [*settings, f"name={name}"]:
        command += ["--set", setting]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {"HOME": str(folder)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def workers_of(driver: int) -> Iterator[psutil.Process]:
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                yield process
        except psutil.Error:
            continue


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    file = folder / "runs" / name / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def kill_in_mid_epoch(driver: int, folder: Path, name: str) -> None:
    """After the second epoch is told of, a third of an epoch later."""
    deadline = time.monotonic() + 240
    while len(told := lines(folder, name)) < 2:
        assert time.monotonic() < deadline, "no second epoch"
        time.sleep(0.05)
    time.sleep(told[-1]["metrics"]["train/seconds"] / 3)
    victim = next(workers_of(driver))
    os.kill(victim.pid, signal.SIGKILL)


def numbers(folder: Path, name: str) -> list[dict[str, float]]:
    kept = ("train/loss", "valid/recall@20", "valid/ndcg@20")
    return [{key: line["metrics"][key] for key in kept} for line in lines(folder, name)]


def test_the_run_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    whole = start(tmp_path, "whole")
    output, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0, output
    killed = start(tmp_path, "killed")
    try:
        kill_in_mid_epoch(killed.pid, tmp_path, "killed")
        died, before = time.monotonic(), len(lines(tmp_path, "killed"))
        while len(lines(tmp_path, "killed")) <= before:
            assert killed.poll() is None, killed.communicate()[0]
            time.sleep(0.05)
        print(f"from the kill to the next epoch: {time.monotonic() - died:.1f} s")
        output, _ = killed.communicate(timeout=300)
    finally:
        killed.kill()
    assert killed.returncode == 0, output
    assert "continuing after epoch" in output
    assert len(numbers(tmp_path, "killed")) == EPOCHS
    assert numbers(tmp_path, "killed") == numbers(tmp_path, "whole")
    results = [json.loads((tmp_path / "runs" / name / "result.json").read_text()) for name in ("whole", "killed")]
    assert results[0]["metrics"] == results[1]["metrics"]
