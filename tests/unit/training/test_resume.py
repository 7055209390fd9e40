"""Resume equals never having stopped, bit for bit: losses, metrics, patience, learning rate and every tensor."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from unittest import mock

import pytest
import torch
from safetensors.torch import load_file
from training_runs import planted_folder, run_config

import braidrec
from braidrec.config.load import ConfigError, to_yaml
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.errors import CheckpointError, Stopped
from braidrec.training.events import EpochEnd, Event, Note, Started
from braidrec.training.lease import Lease
from braidrec.training.result import TrainResult
from braidrec.training.step import TrainStep

EPOCHS = 5
BATCH, STEPS = 256, 4
"""Size of a batch in `run_config`, and how many an epoch has."""
MF = "model.encoder.kind=mf"
SAMPLED = "training.propagation={mode: sampled, fan_outs: [3]}"
CASES: Mapping[str, tuple[str, ...]] = {
    "lightgcn, full, adam, cosine with warm-up, clipped": (
        "training.optimizer={schedule: cosine, warmup_steps: 6, learning_rate: 0.05, gradient_clip: 0.01}",
    ),
    "mf, sparse adam, streamed": (
        MF, "training.optimizer.kind=sparse_adam", "data={delivery: stream, shuffle_buffer: 300}",
    ),
    "lightgcn, sampled, adagrad, linear": (SAMPLED, "training.optimizer={kind: adagrad, schedule: linear}"),
    "lightgcn, labor, sparse adam, targets excluded": (
        "training.propagation={mode: sampled, sampler: labor, fan_outs: [4, 2], exclude_targets: true}",
        "training.optimizer.kind=sparse_adam",
    ),
    "mf, ratings with biases, every other epoch validated": (
        MF, "model.encoder.biases=true", "objective.loss.kind=rating_mse", "evaluation={monitor: rmse, every: 2}",
    ),
    "mf, official sampler, popular negatives, sgd": (
        MF, "training.order=uniform_users", "objective.negatives={kind: popularity, per_positive: 2}",
        "training.optimizer={kind: sgd, learning_rate: 1.0}",
    ),
    "lightgcn, mirror gradient": ("training.optimizer.mirror_gradient={every: 2, up: 0.3}",),
    "lightgcn, sampled, an adversary from the third epoch on": (
        SAMPLED, "training.adversarial={target: embeddings, start_epoch: 3, epsilon: 0.2}",
    ),
    "checkpoints every third epoch": (
        "evaluation.monitor=null", "evaluation.patience=null", "training.checkpoint_every=3",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = planted_folder(tmp_path_factory.mktemp("planted") / "data")
    rows = DatasetFolder.open(str(path)).num_rows("train")
    assert -(-rows // BATCH) == STEPS
    return path


class Recorder:
    """A listener that keeps all events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def handle(self, event: Event) -> None:
        self.events.append(event)


class CrashError(Exception):
    pass


class Crash:
    """Breaks a run off after some of its steps, wherever in an epoch that is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
        self._monkeypatch, self._left, self._run = monkeypatch, steps, TrainStep.run

    def __enter__(self) -> None:
        def run(step: TrainStep, *arguments: object) -> object:
            if not self._left:
                raise CrashError
            self._left -= 1
            return self._run(step, *arguments)

        self._monkeypatch.setattr(TrainStep, "run", run)

    def __exit__(self, *_: object) -> None:
        self._monkeypatch.setattr(TrainStep, "run", self._run)


def train(data: Path, place: Path, name: str, *overrides: str, resume: bool = False, **more: object) -> TrainResult:
    config = run_config(data, place, f"name={name}", f"training.epochs={EPOCHS}", *overrides)
    return braidrec.train(config, resume=name if resume else None, **more)


def history(place: Path, name: str) -> list[dict[str, object]]:
    """All that an epoch reported, but for what the clock and the memory say, and whether it was to be the last: of a
    run that goes on longer one was."""
    lines = [json.loads(line) for line in (place / "runs" / name / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds/", "memory/", "train/interactions_per_second", "train/seconds")
    return [
        {
            **{key: value for key, value in line.items() if key != "last"},
            "metrics": {key: value for key, value in line["metrics"].items() if not key.startswith(timed)},
        }
        for line in lines
    ]


def assert_same(place: Path, first: TrainResult, second: TrainResult) -> None:
    assert history(place, first.name) == history(place, second.name)
    for field in ("metrics", "slices", "best_epoch", "epochs_run", "example"):
        assert getattr(first, field) == getattr(second, field)
    folders = [place / "runs" / result.name / "checkpoints" for result in (first, second)]
    checkpoints = [sorted(path.name for path in folder.iterdir()) for folder in folders]
    assert checkpoints[0] == checkpoints[1]
    for checkpoint in checkpoints[0]:
        states = [json.loads((folder / checkpoint / "state.json").read_text()) for folder in folders]
        assert states[0] == states[1]
        tensors = [load_file(folder / checkpoint / "tensors.safetensors") for folder in folders]
        assert tensors[0].keys() == tensors[1].keys()
        assert all(torch.equal(tensors[0][key], tensors[1][key]) for key in tensors[0])


@pytest.mark.slow
@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES.keys())
def test_broken_off_in_mid_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    """Twice: in the third epoch, and on resuming in the fifth."""
    whole = train(data, tmp_path, "whole", *overrides)
    for resume, steps in ((False, 2 * STEPS + 2), (True, 1 + STEPS)):
        with Crash(monkeypatch, steps), pytest.raises(CrashError):
            train(data, tmp_path, "broken", *overrides, resume=resume)
    assert not (tmp_path / "runs" / "broken" / "result.json").exists()
    assert_same(tmp_path, train(data, tmp_path, "broken", *overrides, resume=True), whole)


@pytest.mark.parametrize("steps", [0, 1, STEPS])
def test_broken_off_in_or_after_the_first_epoch(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    whole = train(data, tmp_path, "whole", MF)
    with Crash(monkeypatch, steps), pytest.raises(CrashError):
        train(data, tmp_path, "broken", MF)
    assert_same(tmp_path, train(data, tmp_path, "broken", MF, resume=True), whole)


def test_patience_goes_on_counting(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broken off between the best epoch and the end that patience gives."""
    patient = ("evaluation.monitor=coverage@20", "evaluation.patience=3", "training.epochs=40")
    whole = train(data, tmp_path, "whole", *patient)
    assert whole.epochs_run == whole.best_epoch + 3 < 40
    with Crash(monkeypatch, (whole.best_epoch + 2) * STEPS), pytest.raises(CrashError):
        train(data, tmp_path, "broken", *patient)
    assert_same(tmp_path, train(data, tmp_path, "broken", *patient, resume=True), whole)


@pytest.mark.slow
def test_killed_in_mid_epoch(data: Path, tmp_path: Path) -> None:
    """SIGKILL: nothing is cleaned up, the lease stays behind."""
    whole = train(data, tmp_path, "whole", SAMPLED)
    config = run_config(data, tmp_path, "name=killed", f"training.epochs={EPOCHS}", SAMPLED)
    (tmp_path / "killed.yaml").write_text(to_yaml(config))
    program = f"""
        import os, signal
        from braidrec.config.load import load_config
        from braidrec.config.run import RunConfig
        from braidrec.training.driver import train
        from braidrec.training.step import TrainStep

        run, left = TrainStep.run, [{3 * STEPS + 2}]

        def run_or_die(*arguments):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return run(*arguments)

        TrainStep.run = run_or_die
        train(load_config(RunConfig, ["{tmp_path / "killed.yaml"}"]))
    """
    done = subprocess.run([sys.executable, "-c", dedent(program)], check=False, capture_output=True, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert (tmp_path / "runs" / "killed" / "lease.json").exists()
    assert_same(tmp_path, train(data, tmp_path, "killed", SAMPLED, resume=True), whole)


def test_a_damaged_checkpoint_costs_an_epoch_and_nothing_else(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(data, tmp_path, "whole", MF)
    with Crash(monkeypatch, 4 * STEPS), pytest.raises(CrashError):
        train(data, tmp_path, "broken", MF)
    file = tmp_path / "runs/broken/checkpoints/epoch-00004/tensors.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    seen = Recorder()
    resumed = train(data, tmp_path, "broken", MF, resume=True, listeners=(seen,))
    warnings = [event.message for event in seen.events if isinstance(event, Note) and event.level == "warning"]
    assert len(warnings) == 1 and "epoch-00004" in warnings[0] and "falling back" in warnings[0]
    assert [event.epoch for event in seen.events if isinstance(event, EpochEnd)] == [4, 5]
    assert_same(tmp_path, resumed, whole)


def test_the_two_newest_damaged_leave_the_best(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    patient = ("evaluation.monitor=coverage@20", "evaluation.patience=null", "training.epochs=8")
    whole = train(data, tmp_path, "whole", *patient)
    assert whole.best_epoch < 6
    with Crash(monkeypatch, 7 * STEPS + 1), pytest.raises(CrashError):
        train(data, tmp_path, "broken", *patient)
    for epoch in (6, 7):
        file = tmp_path / f"runs/broken/checkpoints/epoch-{epoch:05d}/tensors.safetensors"
        file.write_bytes(file.read_bytes()[:-1])
    seen = Recorder()
    resumed = train(data, tmp_path, "broken", *patient, resume=True, listeners=(seen,))
    told = [event.message for event in seen.events if isinstance(event, Note)]
    assert ["epoch-00007" in told[0], "epoch-00006" in told[1]] == [True, True]
    assert told[2].startswith(f"continuing after epoch {whole.best_epoch} ")
    assert_same(tmp_path, resumed, whole)


def test_nothing_but_damaged_checkpoints(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Crash(monkeypatch, 2 * STEPS), pytest.raises(CrashError):
        train(data, tmp_path, "broken", MF)
    for file in (tmp_path / "runs/broken/checkpoints").glob("*/manifest.json"):
        file.unlink()
    with pytest.raises(CheckpointError, match="all 2 checkpoints are broken"):
        train(data, tmp_path, "broken", MF, resume=True)


def test_a_finished_run_is_tested_again_and_no_more(data: Path, tmp_path: Path) -> None:
    first = train(data, tmp_path, "one", MF)
    before = history(tmp_path, "one")
    again = train(data, tmp_path, "one", MF, resume=True)
    assert (again.metrics, again.best_epoch, again.epochs_run) == (first.metrics, first.best_epoch, first.epochs_run)
    assert history(tmp_path, "one") == before


def test_a_run_that_goes_on_longer(data: Path, tmp_path: Path) -> None:
    longer = train(data, tmp_path, "longer", MF, "training.epochs=8")
    train(data, tmp_path, "short", MF)
    assert_same(tmp_path, train(data, tmp_path, "short", MF, "training.epochs=8", resume=True), longer)


def test_a_run_that_goes_on_has_no_result_until_it_ends(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint that the old result names may be gone meanwhile."""
    train(data, tmp_path, "one", MF)
    with Crash(monkeypatch, STEPS + 1), pytest.raises(CrashError):
        train(data, tmp_path, "one", MF, "training.epochs=8", resume=True)
    with pytest.raises(ConfigError, match=r"run 'one' .* has no result yet: finish it with --resume one"):
        braidrec.evaluate("one", storage=str(tmp_path / "runs"))


def test_another_run_is_not_continued(data: Path, tmp_path: Path) -> None:
    train(data, tmp_path, "one", MF)
    with pytest.raises(ConfigError, match=r"model.dim: 8 then, 9 now"):
        train(data, tmp_path, "one", MF, "model.dim=9", resume=True)
    other = planted_folder(tmp_path / "other", seed=5)
    with pytest.raises(ConfigError, match="at the same data, or start a new run"):
        train(other, tmp_path, "one", MF, resume=True)
    with pytest.raises(ConfigError, match=r"no run 'two' .* there are \['one'\]"):
        train(data, tmp_path, "two", MF, resume=True)
    with pytest.raises(ConfigError, match="continue it with --resume one"):
        train(data, tmp_path, "one", MF)


def test_of_two_starts_of_one_name_the_second_leaves_the_first_alone(data: Path, tmp_path: Path) -> None:
    """Also if the first has its lease and not yet written anything else."""
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    with Lease(Location.of(folder)):
        for resume in (False, True):
            with pytest.raises(ConfigError):
                train(data, tmp_path, "one", MF, resume=resume)
        assert sorted(path.name for path in folder.iterdir()) == ["lease.json", "lease.lock"]
    train(data, tmp_path, "one", MF)
    with Lease(Location.of(folder)), pytest.raises(ConfigError, match="run 'one' is being written by process"):
        train(data, tmp_path, "one", MF, resume=True)


def test_the_propagation_stays_what_it_was(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less memory is free on the day of the resume: `auto` would choose otherwise now."""
    whole = train(data, tmp_path, "whole")
    with Crash(monkeypatch, 2 * STEPS + 1), pytest.raises(CrashError):
        train(data, tmp_path, "broken")
    seen = Recorder()
    with mock.patch("psutil.virtual_memory", return_value=mock.Mock(available=1000)):
        resumed = train(data, tmp_path, "broken", resume=True, listeners=(seen,))
        assert_same(tmp_path, resumed, whole)
        fresh = Recorder()
        train(data, tmp_path, "fresh", listeners=(fresh,))
    facts = [next(event for event in one.events if isinstance(event, Started)).facts for one in (seen, fresh)]
    assert facts[0]["propagation"].startswith("full (as the run began)")
    assert facts[1]["propagation"].startswith("sampled (the whole graph needs about")


def test_a_damaged_best_checkpoint(data: Path, tmp_path: Path) -> None:
    """What is left is the last epoch, and it is said."""
    patient = ("evaluation.monitor=coverage@20", "training.epochs=8")
    whole = train(data, tmp_path, "one", *patient)
    assert whole.best_epoch < whole.epochs_run
    flip = Path(whole.checkpoint) / "tensors.safetensors"
    flip.write_bytes(b"x" + flip.read_bytes()[1:])
    seen = Recorder()
    again = train(data, tmp_path, "one", *patient, resume=True, listeners=(seen,))
    (warning,) = [event.message for event in seen.events if isinstance(event, Note) and event.level == "warning"]
    assert (
        f"the results are those of the last epoch, {whole.epochs_run}, not of the best, {whole.best_epoch}" in warning
    )
    assert again.best_epoch == again.epochs_run == whole.epochs_run
    last = history(tmp_path, "one")[-1]["metrics"]
    assert again.metrics["valid/ndcg@10"] == last["valid/ndcg@10"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_in_order(data: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Then it is resumed as if nothing had been."""

    class Killer:
        def handle(self, event: Event) -> None:
            if isinstance(event, EpochEnd) and event.epoch == 2:
                os.kill(os.getpid(), number)

    whole = train(data, tmp_path, "whole", MF)
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as stopped:
        train(data, tmp_path, "stopped", MF, listeners=(Killer(),))
    assert stopped.value.signal == number
    assert signal.getsignal(number) is before
    assert not (tmp_path / "runs/stopped/lease.json").exists()
    assert_same(tmp_path, train(data, tmp_path, "stopped", MF, resume=True), whole)
