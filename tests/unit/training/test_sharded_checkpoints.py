"""What some ranks saved together, as many others read: nothing of it depends on how many there were."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs as pafs
import pytest
import torch
from process_pair import Pair, both
from safetensors.torch import load_file
from sharded_tasks import load_and_go_on, save_where_one_rank_cannot, state_of, steps_and_save
from step_cases import NUM_NODES, Case, shares, some_rows, train
from training_runs import planted_folder, run_config
from two_process_tasks import train_whole

import braidrec
from braidrec.data.storage import Location
from braidrec.errors import CheckpointError
from braidrec.runs.finished import open_run
from braidrec.training.checkpoint import CheckpointStore
from braidrec.training.checkpoint_rows import RowBlock
from braidrec.training.context import SingleProcess

CASES = {
    "adam by rows": Case(optimizer="sparse_adam", model="lightgcn", mode="sampled", sharded=True),
    "adagrad, own parameter": Case(optimizer="adagrad", model="mf_scaled", sharded=True),
    "adagrad with one number a row": Case(optimizer="row_adagrad", sharded=True),
    "dense adam, full graph": Case(optimizer="adam", model="lightgcn", sharded=True),
}
BATCHES = [some_rows(0), some_rows(1, real=4, padding=4), some_rows(2, real=9, padding=0), some_rows(3), some_rows(4)]
FIRST = 3
SLOW = pytest.mark.slow


def run(size: int, request: pytest.FixtureRequest, function: Any, *arguments: Any) -> list[Any]:
    """On as many ranks; batches are dealt out to them."""
    of_ranks = [
        [[shares(rows, size)[rank] for rows in argument] for rank in range(size)]
        if isinstance(argument, list)
        else [argument] * size
        for argument in arguments
    ]
    if size == 1:
        return [function(SingleProcess(), *(argument[0] for argument in of_ranks))]
    group: Pair = request.getfixturevalue({2: "pair", 3: "trio"}[size])
    return group.run(function, *of_ranks)


@pytest.mark.parametrize(
    ("saving", "reading"), [(1, 1), *(pytest.param(*sizes, marks=SLOW) for sizes in ((2, 2), (2, 1), (2, 3), (3, 2)))]
)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_steps_go_on_as_if_nothing_had_happened(
    case: Case, saving: int, reading: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Against five steps of one process with a replicated table, the first three of them by those who save."""
    wanted = train(replace(case, sharded=False), BATCHES)
    run(saving, request, steps_and_save, case, BATCHES[:FIRST], tmp_path)
    found = run(reading, request, load_and_go_on, case, BATCHES[FIRST:], tmp_path)
    assert not [rank for rank in found if isinstance(rank, Exception)], found
    loose = {"rtol": 1e-6, "atol": 1e-9} if "adam" in case.optimizer else {"rtol": 1e-9, "atol": 1e-11}
    for rank in found:
        np.testing.assert_allclose(rank["restored"], wanted["tables"][FIRST - 1], **loose)
        np.testing.assert_allclose(rank["table"], wanted["tables"][-1], **loose)
        np.testing.assert_allclose(rank["losses"], wanted["losses"][FIRST:], **loose)
        for own in rank["own"]:
            np.testing.assert_allclose(own, wanted["parameters"][-1], **loose)
        assert rank["loaded"]["table:id"] == rank["held"]  # and no row more
        assert {len_ for name, len_ in rank["loaded"].items() if name.startswith("optimizer:0/")} == {rank["held"]}
    assert sum(rank["held"] for rank in found) == NUM_NODES
    assert not np.allclose(wanted["tables"][FIRST - 1], wanted["tables"][-1])


@SLOW
def test_what_one_replicated_table_saved_two_shards_read_and_the_other_way_round(pair: Pair, tmp_path: Path) -> None:
    case = Case(optimizer="sparse_adam", model="lightgcn", mode="sampled")
    wanted = train(case, BATCHES)["tables"][-1]
    sharded = replace(case, sharded=True)
    steps_and_save(SingleProcess(), case, BATCHES[:FIRST], tmp_path / "one")
    split = [[shares(rows, 2)[rank] for rows in BATCHES] for rank in range(2)]
    later = [batches[FIRST:] for batches in split]
    for rank in pair.run(load_and_go_on, both(sharded), later, both(tmp_path / "one")):
        np.testing.assert_allclose(rank["table"], wanted, rtol=1e-6, atol=1e-9)
    pair.run(steps_and_save, both(sharded), [batches[:FIRST] for batches in split], both(tmp_path / "two"))
    back = load_and_go_on(SingleProcess(), case, BATCHES[FIRST:], tmp_path / "two")
    np.testing.assert_allclose(back["table"], wanted, rtol=1e-6, atol=1e-9)


def blocks(start: int, stop: int) -> dict[str, RowBlock]:
    whole = torch.arange(20.0).reshape(10, 2)
    return {"table:id": RowBlock(start, whole[start:stop]), "optimizer:0/0/sum": RowBlock(start, whole[start:stop, 0])}


def saved_by_three(location: Location, epochs: int = 1) -> CheckpointStore:
    """Rows 0 to 4, none, and 4 to 10."""
    store = CheckpointStore(location, warn=lambda message: None)
    for epoch in range(1, epochs + 1):
        store.begin(epoch)
        for rank, (start, stop) in enumerate([(0, 4), (4, 4), (4, 10)]):
            store.save_rows(epoch, blocks(start, stop), rank=rank, num_ranks=3)
        store.save({"model:w": torch.ones(3)}, state_of(epoch), num_parts=3)
    return store


@pytest.fixture(params=["local", "remote"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    (tmp_path / "checkpoints").mkdir()
    if request.param == "local":
        return Location.of(tmp_path / "checkpoints")
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    return Location(uri="mock://checkpoints", filesystem=store, path="checkpoints")


def test_any_range_of_rows(location: Location) -> None:
    store = saved_by_three(location)
    whole = torch.arange(20.0).reshape(10, 2)
    tensors, state = store.load(1)
    assert state == state_of(1)
    assert sorted(tensors) == ["model:w", "optimizer:0/0/sum", "table:id"]
    assert torch.equal(tensors["table:id"], whole) and torch.equal(tensors["optimizer:0/0/sum"], whole[:, 0])
    for start in range(11):
        for stop in range(start, 11):
            part, _ = store.load(1, lambda name, held=range(start, stop): held if name == "table:id" else None)
            assert torch.equal(part["table:id"], whole[start:stop]) and part["table:id"].shape[1] == 2
            assert len(part["optimizer:0/0/sum"]) == 10
    some, _ = store.load(1, wanted=lambda name: not name.startswith("optimizer"))
    assert sorted(some) == ["model:w", "table:id"]


def test_files_are_what_the_manifest_says(tmp_path: Path) -> None:
    saved_by_three(Location.of(tmp_path))
    (folder,) = tmp_path.iterdir()
    names = [f"rows-0000{rank}-of-00003.safetensors" for rank in range(3)]
    assert sorted(file.name for file in folder.iterdir()) == [
        "manifest.json", *names, "state.json", "tensors.safetensors"
    ]  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    for file, (start, stop) in zip(names, [(0, 4), (4, 4), (4, 10)], strict=True):
        content = (folder / file).read_bytes()
        assert manifest[file]["bytes"] == len(content)
        assert manifest[file]["sha256"] == hashlib.sha256(content).hexdigest()
        assert manifest[file]["rows"]["table:id"] == [start, stop]
        assert len(load_file(folder / file)["table:id"]) == stop - start


@pytest.mark.parametrize("damage", ["truncated", "missing", "flipped"])
@pytest.mark.parametrize("rank", [0, 2])
def test_a_damaged_part_is_noticed_and_the_checkpoint_before_it_taken(
    location: Location, tmp_path: Path, rank: int, damage: str
) -> None:
    store = saved_by_three(location, epochs=2)
    file = tmp_path / "checkpoints" / "epoch-00002" / f"rows-0000{rank}-of-00003.safetensors"
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        middle = len(content) - 9
        flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
        file.write_bytes(content[:-1] if damage == "truncated" else flipped)
    assert store.newest_good() == 1
    with pytest.raises(CheckpointError, match=file.name):
        store.load(2)


def test_parts_that_do_not_make_a_whole(tmp_path: Path) -> None:
    store = CheckpointStore(Location.of(tmp_path), warn=lambda message: None)
    store.begin(1)
    for rank, (start, stop) in enumerate([(0, 4), (5, 10)]):
        store.save_rows(1, blocks(start, stop), rank=rank, num_ranks=2)
    store.save({}, state_of(1), num_parts=2)
    with pytest.raises(CheckpointError, match="rows 4 to 10 of table:id are in none of its files"):
        store.load(1)


@SLOW
def test_a_full_disk_on_one_rank_ends_all_and_leaves_the_checkpoint_before(pair: Pair, tmp_path: Path) -> None:
    first, second = pair.run(save_where_one_rank_cannot, both(tmp_path))
    assert isinstance(first, CheckpointError) and isinstance(second, CheckpointError)
    assert "another worker could not write" in str(first)
    assert "No space left on device" in str(second) and "--resume continues" in str(second)
    store = CheckpointStore(Location.of(tmp_path), warn=pytest.fail)
    assert store.newest_good() == 1
    store.load(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_folder(tmp_path_factory.mktemp("planted") / "data")


SAMPLED = ("training.propagation={mode: sampled, fan_outs: [3]}", "training.optimizer.kind=sparse_adam")


@SLOW
def test_whole_runs(pair: Pair, data: Path, tmp_path: Path) -> None:
    """Two ranks: sharded as replicated; broken off after two epochs and resumed as run at once, to the last bit."""
    found = {}
    for tables, epochs in (("replicated", [4]), ("sharded", [4]), ("sharded", [2, 4])):
        for upto in epochs:
            config = run_config(data, tmp_path, *SAMPLED, f"training.tables={tables}", f"training.epochs={upto}")
            place = tmp_path / "runs" / f"{tables}-{len(epochs)}"
            ranks = pair.run(train_whole, both(config), both(str(data)), both(place))
        assert not [rank for rank in ranks if isinstance(rank, Exception)], ranks
        assert ranks[0]["metrics"] == ranks[1]["metrics"]
        found[tables, len(epochs)] = ranks[0]
    whole, resumed = found["sharded", 1], found["sharded", 2]
    np.testing.assert_array_equal(whole["tables"]["id"], resumed["tables"]["id"])
    assert whole["metrics"] == resumed["metrics"] and whole["best_epoch"] == resumed["best_epoch"]
    np.testing.assert_allclose(
        whole["tables"]["id"], found["replicated", 1]["tables"]["id"], rtol=1e-4, atol=1e-6
    )  # fp32, and Adam divides by the roots of small squares
    for name, value in found["replicated", 1]["metrics"].items():
        assert whole["metrics"][name] == pytest.approx(value, abs=0.02), name


def test_a_finished_run_is_read_back(data: Path, tmp_path: Path) -> None:
    """As evaluate and recommend do."""
    scores = []
    for tables in ("replicated", "sharded"):
        config = run_config(data, tmp_path, *SAMPLED, f"training.tables={tables}", f"name={tables}")
        result = braidrec.train(config)
        parts = sorted(path.name for path in Path(result.checkpoint).iterdir() if path.name.startswith("rows-"))
        assert parts == (["rows-00000-of-00001.safetensors"] if tables == "sharded" else [])
        scores.append(open_run(tables, str(tmp_path / "runs")).ranker.score(torch.arange(20)).numpy())
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4, atol=1e-5)
    assert np.ptp(scores[0]) > 0.1
