"""Batches made ready on a thread: the same runs to the last bit, nothing drawn by another's number, errors told."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from process_pair import Pair, both
from training_runs import planted_folder, run_config
from two_process_tasks import train_whole

from braidrec.data.folder import DatasetFolder
from braidrec.data.negatives import NegativeSampler
from braidrec.data.storage import Location
from braidrec.training.build import build_parts
from braidrec.training.events import EpochEnd, Event
from braidrec.training.local_worker import LocalWorker
from braidrec.training.loop import Loop

CASES = {
    "sparse adam": ("training.propagation={mode: sampled, sampler: labor, fan_outs: [3]}",
                    "training.optimizer.kind=sparse_adam"),
    "targets excluded, several negatives": (
        "training.propagation={mode: sampled, sampler: labor, fan_outs: [4, 2], exclude_targets: true}",
        "objective.negatives={per_positive: 2, shared: 20}",
    ),
    "a view an epoch, dealt out": ("training.propagation={mode: sampled, sampler: labor, fan_outs: [3]}",
                                   "training.tables=sharded", "model.self_supervision.a={kind: contrast}"),
}  # fmt: skip
TIMED = ("seconds/", "memory/", "train/seconds", "train/interactions_per_second")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_folder(tmp_path_factory.mktemp("planted") / "data")


@pytest.fixture
def drawn_on(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The threads that negatives were drawn on."""
    names: set[str] = set()
    draw = NegativeSampler.draw

    def watched(sampler: NegativeSampler, *arguments: object) -> object:
        names.add(threading.current_thread().name)
        return draw(sampler, *arguments)

    monkeypatch.setattr(NegativeSampler, "draw", watched)
    return names


def run(data: Path, place: Path, *overrides: str) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """All that the epochs report, and the tables at the end."""
    events: list[Event] = []
    config = run_config(data, place, "training.epochs=3", *overrides)
    worker = LocalWorker(torch.device("cpu"), events.append)
    parts = build_parts(config, DatasetFolder.open(str(data)), worker)
    Loop(config, parts, worker, Location.of(place / "run")).run()
    epochs = [event.metrics for event in events if isinstance(event, EpochEnd)]
    told = [{name: value for name, value in epoch.items() if not name.startswith(TIMED)} for epoch in epochs]
    return told, {name: table.all_rows().clone() for name, table in parts.tables.items()}


@pytest.mark.parametrize("overrides", CASES.values(), ids=CASES.keys())
def test_the_same_to_the_last_bit(overrides: tuple[str, ...], data: Path, tmp_path: Path, drawn_on: set[str]) -> None:
    epochs, tables = run(data, tmp_path / "plain", *overrides, "training.prepare_ahead=false")
    assert drawn_on == {"MainThread"}
    drawn_on.clear()
    ahead, same = run(data, tmp_path / "ahead", *overrides)
    assert drawn_on == {"sampling_0"}
    assert ahead == epochs and len(epochs) == 3
    assert all(torch.equal(same[name], table) for name, table in tables.items())


@pytest.mark.parametrize("propagation", ["{mode: full}", "{mode: sampled, sampler: neighbour, fan_outs: [3]}"])
def test_not_where_nothing_is_gained_or_the_thread_would_matter(
    propagation: str, data: Path, tmp_path: Path, drawn_on: set[str]
) -> None:
    run(data, tmp_path, f"training.propagation={propagation}")
    assert drawn_on == {"MainThread"}


def test_an_error_in_the_thread_reaches_the_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no negatives today")

    monkeypatch.setattr(NegativeSampler, "draw", fail)
    with pytest.raises(ValueError, match="no negatives today"):
        run(data, tmp_path, *CASES["sparse adam"])
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sampling")]


def test_input_rows_per_interaction(data: Path, tmp_path: Path) -> None:
    """All nodes in full propagation; without any, the users, items and negatives of a batch, each once."""
    rows = DatasetFolder.open(str(data)).num_rows("train")
    steps = -(-rows // 256)
    (full, *_), _ = run(data, tmp_path / "full", "training.propagation.mode=full")
    assert full["train/input_rows_per_interaction"] == pytest.approx(140 * steps / rows)
    none = ("model.encoder.kind=mf", "training.batch_size=32", "training.epochs=1")
    many, few = (run(data, tmp_path / f"mf-{size}", *none, f"objective.negatives.shared={size}")[0] for size in (99, 1))
    saved = many[0]["train/input_rows_per_interaction"] - few[0]["train/input_rows_per_interaction"]
    assert few[0]["train/input_rows_per_interaction"] <= 2 + 1 / 32 + 1e-9
    assert saved > 0.1


@pytest.mark.slow
def test_on_two_processes_with_dealt_out_tables(pair: Pair, data: Path, tmp_path: Path) -> None:
    found = []
    for ahead in ("true", "false"):
        config = run_config(data, tmp_path, *CASES["sparse adam"], "training.tables=sharded",
                            f"training.prepare_ahead={ahead}", "training.epochs=3")  # fmt: skip
        ranks = pair.run(train_whole, both(config), both(str(data)), both(tmp_path / ahead))
        assert not [rank for rank in ranks if isinstance(rank, Exception)], ranks
        found.append(ranks[0])
    assert found[0]["metrics"] == found[1]["metrics"]
    np.testing.assert_array_equal(found[0]["tables"]["id"], found[1]["tables"]["id"])
