"""A run that is told to go saves where it is, in mid-epoch, and goes on from there as if nothing had been."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from test_learned_relations import LATTICE
from test_resume import CASES, EPOCHS, MF, STEPS, Recorder, assert_same, train
from training_runs import planted_folder

from braidrec.config.load import ConfigError
from braidrec.data.planted import generate_planted
from braidrec.data.storage import Location
from braidrec.errors import Stopped
from braidrec.training.checkpoint import CheckpointStore, EpochSoFar, RunState
from braidrec.training.events import EpochEnd, Event, Note, Progress, Started
from braidrec.training.lease import Lease
from braidrec.training.local_worker import LocalWorker
from braidrec.training.mid_epoch import EpochSums, MidEpoch
from braidrec.training.step import Position, StepResult, TrainStep

Place = tuple[int, int]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_folder(tmp_path_factory.mktemp("planted") / "data")


class Steps:
    """Notes which steps are taken, and acts in the middle of some: with the batch drawn and nothing learnt from it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[Place] = []
        self.acts: dict[Place, Callable[[], None]] = {}
        run = TrainStep._update

        def noted(step: TrainStep, batch: Any, inputs: Any, places: Any, at: Position, factor: float) -> Any:
            self.acts.pop((at.epoch, at.step), lambda: None)()
            result = run(step, batch, inputs, places, at, factor)
            self.taken.append((at.epoch, at.step))
            return result

        monkeypatch.setattr(TrainStep, "_update", noted)

    def stop_in(self, *places: Place, number: int = signal.SIGTERM) -> None:
        self.acts |= {place: lambda: os.kill(os.getpid(), number) for place in places}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def all_steps(epochs: int = EPOCHS) -> list[Place]:
    return [(epoch, step) for epoch in range(1, epochs + 1) for step in range(STEPS)]


def notes(seen: Recorder) -> list[str]:
    return [event.message for event in seen.events if isinstance(event, Note)]


def mid_epoch(place: Path, name: str = "stopped") -> list[str]:
    folder = place / "runs" / name / "mid_epoch"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.mark.slow
@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES.keys())
def test_every_step_is_taken_once_and_every_number_is_the_same(
    data: Path, tmp_path: Path, steps: Steps, overrides: tuple[str, ...]
) -> None:
    """Stopped in the third epoch, twice, and in the fifth."""
    whole = train(data, tmp_path, "whole", *overrides)
    taken_by_whole, steps.taken = steps.taken, []
    steps.stop_in((3, 1), (3, 2), (5, 0))
    for resume, saved in ((False, 2 * STEPS + 2), (True, 2 * STEPS + 3), (True, 4 * STEPS + 1)):
        with pytest.raises(Stopped):
            train(data, tmp_path, "stopped", *overrides, resume=resume)
        assert mid_epoch(tmp_path) == [f"step-{saved:05d}"]
    resumed = train(data, tmp_path, "stopped", *overrides, resume=True)
    assert steps.taken == taken_by_whole
    assert_same(tmp_path, resumed, whole)
    assert mid_epoch(tmp_path) == []


@pytest.mark.parametrize("place", [(1, 0), (1, STEPS - 1), (2, STEPS - 1)])
def test_before_there_is_a_checkpoint_and_in_the_last_step_of_an_epoch(
    data: Path, tmp_path: Path, steps: Steps, place: Place
) -> None:
    whole = train(data, tmp_path, "whole", MF)
    steps.taken.clear()
    steps.stop_in(place)
    with pytest.raises(Stopped):
        train(data, tmp_path, "stopped", MF)
    assert_same(tmp_path, train(data, tmp_path, "stopped", MF, resume=True), whole)
    assert steps.taken == all_steps()


def test_seconds_go_on_where_they_were(data: Path, tmp_path: Path, steps: Steps) -> None:
    steps.stop_in((2, 2))
    with pytest.raises(Stopped):
        train(data, tmp_path, "stopped", MF)
    (saved,) = (tmp_path / "runs/stopped/mid_epoch").glob("*/state.json")
    so_far = json.loads(saved.read_text())["so_far"]
    so_far |= {"seconds": so_far["seconds"] + 100, "phases": {**so_far["phases"], "optimizer": 50.0}}
    replace_state(tmp_path, so_far)
    ends = Recorder()
    train(data, tmp_path, "stopped", MF, resume=True, listeners=(ends,))
    (second, third) = [event.metrics for event in ends.events if isinstance(event, EpochEnd)][:2]
    assert 100 < second["train/seconds"] < 110 and 50 < second["seconds/optimizer"] < 55
    assert third["train/seconds"] < 10 and third["seconds/optimizer"] < 5


def replace_state(place: Path, so_far: dict[str, object]) -> None:
    """Write the state in mid-epoch again with other sums."""
    store = CheckpointStore(Location.of(place / "runs/stopped/mid_epoch"), warn=pytest.fail, keep=1, unit="step")
    (number,) = store.epochs()
    tensors, state = store.load(number)
    lists = {key: tuple(value) if isinstance(value, list) else value for key, value in so_far.items()}
    store.save(tensors, replace(state, so_far=EpochSoFar(**lists)))
    assert store.state(number).so_far != state.so_far


def test_a_signal_while_the_epoch_is_evaluated_repeats_no_step(
    data: Path, tmp_path: Path, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(data, tmp_path, "whole", MF)
    steps.taken.clear()

    class Killer:
        def handle(self, event: Event) -> None:
            if isinstance(event, Progress) and (event.stage, event.epoch) == ("valid", 2):
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        train(data, tmp_path, "stopped", MF, listeners=(Killer(),))
    assert mid_epoch(tmp_path) == [f"step-{2 * STEPS:05d}"]
    assert_same(tmp_path, train(data, tmp_path, "stopped", MF, resume=True), whole)
    assert steps.taken == all_steps()


def test_who_is_told_after_the_last_sum_of_an_epoch_is_heard_before_it_is_evaluated(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    heeded: list[tuple[list[str], int]] = []
    seen = Recorder()
    add = EpochSums.add

    def told_later(sums: EpochSums, result: StepResult) -> bool:
        noticed = add(sums, result)
        if sums.step == STEPS and not heeded:
            told.append(True)
        return noticed

    def heed(worker: LocalWorker) -> None:
        told.clear()
        heeded.append((mid_epoch(tmp_path), sum(isinstance(event, EpochEnd) for event in seen.events)))

    monkeypatch.setattr(EpochSums, "add", told_later)
    monkeypatch.setattr(LocalWorker, "noticed", lambda worker: bool(told))
    monkeypatch.setattr(LocalWorker, "heed", heed)
    train(data, tmp_path, "stopped", MF, listeners=(seen,))
    assert heeded == [([f"step-{STEPS:05d}"], 0)]


def test_a_second_signal_ends_the_run_at_once(data: Path, tmp_path: Path, steps: Steps) -> None:
    """In the middle of a step, whose state nobody could go on from."""

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    whole = train(data, tmp_path, "whole", MF)
    steps.taken.clear()
    steps.acts[2, 1] = twice
    with pytest.raises(Stopped):
        train(data, tmp_path, "stopped", MF)
    assert steps.taken == [*all_steps(1), (2, 0)]
    assert mid_epoch(tmp_path) == []
    assert_same(tmp_path, train(data, tmp_path, "stopped", MF, resume=True), whole)


def test_it_is_said_where_it_was_saved_and_where_it_goes_on(data: Path, tmp_path: Path, steps: Steps) -> None:
    steps.stop_in((3, 1))
    first, second = Recorder(), Recorder()
    with pytest.raises(Stopped):
        train(data, tmp_path, "stopped", MF, listeners=(first,))
    assert any(f"saved after step 2 of {STEPS} of epoch 3" in note for note in notes(first))
    train(data, tmp_path, "stopped", MF, resume=True, listeners=(second,))
    assert any(f"continuing after step 2 of {STEPS} of epoch 3" in note for note in notes(second))
    (start,) = [event for event in second.events if isinstance(event, Started)]
    assert start.first_epoch == 3


def stopped_in_the_third_epoch(data: Path, tmp_path: Path, steps: Steps, *overrides: str) -> Path:
    """A run with a state in mid-epoch; returns the folder of it."""
    steps.stop_in((3, 1))
    with pytest.raises(Stopped):
        train(data, tmp_path, "stopped", MF, *overrides)
    steps.taken.clear()
    (folder,) = (tmp_path / "runs/stopped/mid_epoch").iterdir()
    return folder


def test_what_another_number_of_workers_saved_costs_the_epoch_and_is_said(
    data: Path, tmp_path: Path, steps: Steps
) -> None:
    whole = train(data, tmp_path, "whole", MF)
    folder = stopped_in_the_third_epoch(data, tmp_path, steps)
    so_far = json.loads((folder / "state.json").read_text())["so_far"]
    replace_state(tmp_path, {**so_far, "world_size": 3})
    seen = Recorder()
    resumed = train(data, tmp_path, "stopped", MF, resume=True, listeners=(seen,))
    (warning,) = [note for note in notes(seen) if "saved by 3 workers" in note]
    assert f"in step 2 of {STEPS} of epoch 3, and 1 would share its batches differently" in warning
    assert any("continuing after epoch 2" in note for note in notes(seen))
    assert steps.taken == all_steps()[2 * STEPS :]
    assert_same(tmp_path, resumed, whole)
    assert mid_epoch(tmp_path) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_what_is_saved_before_the_step_of_a_refused_one_stays(
    data: Path, tmp_path: Path, steps: Steps, damaged: bool
) -> None:
    """Three workers saved after the second step of an epoch; what repeats it is stopped after the first."""
    whole = train(data, tmp_path, "whole", MF)
    folder = stopped_in_the_third_epoch(data, tmp_path, steps)
    if damaged:
        (folder / "tensors.safetensors").write_bytes(b"")
    else:
        replace_state(tmp_path, {**json.loads((folder / "state.json").read_text())["so_far"], "world_size": 3})
    steps.stop_in((3, 0))
    with pytest.raises(Stopped):
        train(data, tmp_path, "stopped", MF, resume=True)
    assert mid_epoch(tmp_path) == [f"step-{2 * STEPS + 1:05d}"]
    assert_same(tmp_path, train(data, tmp_path, "stopped", MF, resume=True), whole)
    assert steps.taken == all_steps()[2 * STEPS :]


def test_the_end_of_an_epoch_that_is_not_whole_is_no_reason_to_repeat_it(
    data: Path, tmp_path: Path, steps: Steps
) -> None:
    """A process died while it uploaded the end of the third epoch: no manifest."""
    whole = train(data, tmp_path, "whole", MF)
    stopped_in_the_third_epoch(data, tmp_path, steps)
    half = tmp_path / "runs/stopped/checkpoints/epoch-00003"
    half.mkdir()
    (half / "state.json").write_text("{}")
    seen = Recorder()
    resumed = train(data, tmp_path, "stopped", MF, resume=True, listeners=(seen,))
    assert any("epoch-00003 is not a complete" in note and "saved in mid-epoch" in note for note in notes(seen))
    assert steps.taken == all_steps()[2 * STEPS + 2 :]
    assert_same(tmp_path, resumed, whole)


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_damaged_one_costs_the_epoch_and_is_said(data: Path, tmp_path: Path, steps: Steps, file: str) -> None:
    whole = train(data, tmp_path, "whole", MF)
    damaged = stopped_in_the_third_epoch(data, tmp_path, steps) / file
    damaged.write_bytes(damaged.read_bytes()[:-1])
    seen = Recorder()
    resumed = train(data, tmp_path, "stopped", MF, resume=True, listeners=(seen,))
    assert any("step-00010" in note and "going back to the last end of an epoch" in note for note in notes(seen))
    assert steps.taken == all_steps()[2 * STEPS :]
    assert_same(tmp_path, resumed, whole)


def test_one_that_is_older_than_the_last_epoch_is_not_gone_back_to(data: Path, tmp_path: Path, steps: Steps) -> None:
    """Its process died after the epoch was saved, before it was removed."""
    whole = train(data, tmp_path, "whole", MF)
    stopped_in_the_third_epoch(data, tmp_path, steps)
    with mock.patch.object(MidEpoch, "forget"):
        steps.stop_in((4, 0), number=signal.SIGINT)
        with mock.patch.object(MidEpoch, "save"), pytest.raises(Stopped):
            train(data, tmp_path, "stopped", MF, resume=True)
    assert mid_epoch(tmp_path) == ["step-00010"]
    steps.taken.clear()
    assert_same(tmp_path, train(data, tmp_path, "stopped", MF, resume=True), whole)
    assert steps.taken == all_steps()[3 * STEPS :]
    assert mid_epoch(tmp_path) == []


def test_it_goes_on_though_all_ends_of_epochs_are_broken(data: Path, tmp_path: Path, steps: Steps) -> None:
    """Both that are kept; what is saved in mid-epoch needs none of them but the best one, to be tested."""
    whole = train(data, tmp_path, "whole", MF, "evaluation.monitor=null", "evaluation.patience=null")
    stopped_in_the_third_epoch(data, tmp_path, steps, "evaluation.monitor=null", "evaluation.patience=null")
    for checkpoint in (tmp_path / "runs/stopped/checkpoints").iterdir():
        (checkpoint / "tensors.safetensors").write_bytes(b"")
    resumed = train(data, tmp_path, "stopped", MF, "evaluation.monitor=null", "evaluation.patience=null", resume=True)
    assert resumed.metrics == whole.metrics


def test_a_full_disk_costs_the_epoch_and_is_said(data: Path, tmp_path: Path, steps: Steps) -> None:
    whole = train(data, tmp_path, "whole", MF)
    seen = Recorder()
    steps.stop_in((3, 1))
    full = OSError(28, "No space left on device")
    save = CheckpointStore.save

    def fails_in_mid_epoch(store: CheckpointStore, tensors: object, state: RunState, **more: object) -> None:
        if state.so_far is not None:
            raise full
        save(store, tensors, state, **more)

    with mock.patch.object(CheckpointStore, "save", fails_in_mid_epoch), pytest.raises(Stopped):
        train(data, tmp_path, "stopped", MF, listeners=(seen,))
    assert any("No space left on device" in note and "--resume repeats the epoch" in note for note in notes(seen))
    assert_same(tmp_path, train(data, tmp_path, "stopped", MF, resume=True), whole)


def test_who_lost_the_run_to_another_process_writes_nothing(data: Path, tmp_path: Path, steps: Steps) -> None:
    """The lease sends the signal itself."""

    def lost() -> None:
        file = tmp_path / "runs/stopped/lease.json"
        taken = json.loads(file.read_text()) | {"token": "another"}
        file.write_text(json.dumps(taken))
        with mock.patch("braidrec.training.lease.HEARTBEAT_SECONDS", 0.0):
            (lease,) = leases
            lease._beat()

    leases: list[Lease] = []
    enter = Lease.__enter__

    def remembered(lease: Lease) -> Lease:
        leases.append(lease)
        return enter(lease)

    steps.acts[3, 1] = lost
    with mock.patch.object(Lease, "__enter__", remembered), pytest.raises(Stopped):
        train(data, tmp_path, "stopped", MF)
    assert steps.taken[-1] == (3, 0)
    assert mid_epoch(tmp_path) == []


def test_a_model_that_learns_its_relations_says_that_it_repeats_the_epoch(tmp_path: Path, steps: Steps) -> None:
    data = tmp_path / "images"
    generate_planted(str(data), num_users=80, num_items=60, num_interactions=1_200, num_topics=4, coverage=0.8)
    whole = train(data, tmp_path, "whole", *LATTICE)
    steps.taken.clear()
    steps.stop_in((2, 0))
    seen = Recorder()
    with pytest.raises(Stopped):
        train(data, tmp_path, "stopped", *LATTICE, listeners=(seen,))
    assert any("learns its relations" in note and "repeats the epoch" in note for note in notes(seen))
    assert mid_epoch(tmp_path) == []
    assert_same(tmp_path, train(data, tmp_path, "stopped", *LATTICE, resume=True), whole)


def test_a_changed_configuration_is_refused_in_mid_epoch_too(data: Path, tmp_path: Path, steps: Steps) -> None:
    stopped_in_the_third_epoch(data, tmp_path, steps)
    with pytest.raises(ConfigError, match=r"training\.optimizer\.learning_rate: 0\.02 then, 0\.5 now"):
        train(data, tmp_path, "stopped", MF, "training.optimizer.learning_rate=0.5", resume=True)
    assert mid_epoch(tmp_path) == ["step-00010"]


def test_the_state_comes_back_as_it_was(tmp_path: Path) -> None:
    so_far = EpochSoFar(
        step=7,
        steps=9,
        world_size=2,
        losses=(0.1 + 0.2, 1e-300),
        weights=(7.0, 2.0**53 - 1),
        input_nodes=(12345678901234, 5),
        seconds=1 / 3,
        phases={"data": 2 / 3},
    )
    state = RunState(
        epoch=3, global_step=34, best_epoch=2, best_value=1 / 7, stale_validations=1, config_hash="x", so_far=so_far
    )
    store = CheckpointStore(Location.of(tmp_path), warn=pytest.fail, keep=1, unit="step")
    for step in (34, 35):
        store.save({"model:a": torch.arange(3.0)}, replace(state, global_step=step))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00035"]
    assert store.state(35) == replace(state, global_step=35)
