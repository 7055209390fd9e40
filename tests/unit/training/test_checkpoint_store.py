"""Checkpoints: complete or not there, verified before they are believed, the newest and the best kept."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.fs as pafs
import pytest
import torch
from torch import Tensor

from braidrec.data.storage import Location
from braidrec.errors import CheckpointError
from braidrec.training.checkpoint import CheckpointStore, RunState, prefixed, with_prefix

FILES = ["manifest.json", "state.json", "tensors.safetensors"]


def state(epoch: int, best: int = 1) -> RunState:
    return RunState(
        epoch=epoch, global_step=epoch * 10, best_epoch=best, best_value=best / 7, stale_validations=epoch - best,
        config_hash="abc",
    )  # fmt: skip


def tensors(epoch: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(epoch)
    return {
        "table:id": torch.randn(5, 3, generator=generator),
        "optimizer:0/0/step": torch.tensor(float(epoch)),
        "model:scale": torch.randn(2, generator=generator, dtype=torch.float64),
    }


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        assert tensor.dtype == wanted[name].dtype
        assert torch.equal(tensor, wanted[name])


class Remote:
    """A folder behind a filesystem that is not the local one, as an object store is."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.location = Location(
            uri="mock://bucket/checkpoints",
            filesystem=pafs.SubTreeFileSystem(str(root), pafs.LocalFileSystem()),
            path="checkpoints",
        )


@pytest.fixture(params=["path", "file uri", "remote"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    if request.param == "remote":
        remote = Remote(tmp_path / "bucket").location
        assert not remote.is_local
        return remote
    folder = tmp_path / "checkpoints"
    return Location.of(folder.as_uri() if request.param == "file uri" else folder)


@pytest.fixture
def folder(location: Location, tmp_path: Path) -> Path:
    """Where the location's files are on this machine."""
    return tmp_path / ("checkpoints" if location.is_local else "bucket/checkpoints")


def filled(location: Location, epochs: int, warnings: list[str] | None = None, *, keep: int = 2) -> CheckpointStore:
    store = CheckpointStore(location, warn=(warnings if warnings is not None else []).append, keep=keep)
    for epoch in range(1, epochs + 1):
        store.save(tensors(epoch), state(epoch))
    return store


def load_newest(store: CheckpointStore) -> tuple[dict[str, Tensor], RunState] | None:
    """What a resumed run starts from."""
    epoch = store.newest_good()
    return store.load(epoch) if epoch else None


def test_what_is_saved_is_loaded(location: Location) -> None:
    warnings: list[str] = []
    loaded = load_newest(filled(location, 3, warnings))
    assert loaded is not None
    assert_equal(loaded[0], tensors(3))
    assert loaded[1] == state(3)
    assert_equal(CheckpointStore(location, warn=warnings.append).load(2)[0], tensors(2))
    assert warnings == []


def test_nothing_there(location: Location) -> None:
    store = CheckpointStore(location, warn=pytest.fail)
    assert store.epochs() == []
    assert load_newest(store) is None
    with pytest.raises(CheckpointError, match="epoch-00004 is not a complete checkpoint"):
        store.load(4)


def test_the_two_newest_and_the_best_stay(location: Location) -> None:
    store = CheckpointStore(location, warn=pytest.fail)
    for epoch, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        store.save(tensors(epoch), state(epoch, best))
    assert store.epochs() == [2, 4, 5]
    store.save(tensors(6), state(6, 6))
    assert store.epochs() == [5, 6]
    assert_equal(store.load(5)[0], tensors(5))


def test_an_epoch_saved_again_replaces_the_first(location: Location) -> None:
    store = filled(location, 2)
    store.save(tensors(9), state(2))
    assert_equal(store.load(2)[0], tensors(9))
    assert store.epochs() == [1, 2]


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def other_json(file: Path) -> None:
    file.write_text("[1, 2]")


DAMAGE = [
    *[(name, damage) for name in FILES for damage in (truncate, Path.unlink, empty)],
    *[(name, flip_a_bit) for name in ("state.json", "tensors.safetensors")],
    ("manifest.json", other_json),
]


@pytest.mark.parametrize(("file", "damage"), DAMAGE, ids=[f"{file}, {damage.__name__}" for file, damage in DAMAGE])
def test_a_damaged_checkpoint_gives_way_to_its_predecessor(
    location: Location, folder: Path, file: str, damage: Callable[[Path], None]
) -> None:
    warnings: list[str] = []
    store = filled(location, 3, warnings)
    damage(folder / "epoch-00003" / file)
    loaded = load_newest(store)
    assert loaded is not None
    assert_equal(loaded[0], tensors(2))
    assert loaded[1] == state(2)
    (warning,) = warnings
    assert f"{location.uri}/epoch-00003" in warning
    assert warning.endswith("falling back to the one before it")
    with pytest.raises(CheckpointError, match="epoch-00003"):
        store.load(3)


def test_no_byte_changes_unnoticed(tmp_path: Path) -> None:
    """Every third byte of the two files, one at a time."""
    store = CheckpointStore(Location.of(tmp_path), warn=lambda message: None)
    store.save({"table:id": torch.ones(1, 2)}, state(1))
    for name in ("state.json", "tensors.safetensors"):
        file = tmp_path / "epoch-00001" / name
        whole = file.read_bytes()
        for place in range(0, len(whole), 3):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
            with pytest.raises(CheckpointError, match=f"{name} is damaged"):
                store.load(1)
        file.write_bytes(whole)
    store.load(1)


def test_all_damaged(location: Location, folder: Path) -> None:
    warnings: list[str] = []
    store = filled(location, 3, warnings)
    for epoch in store.epochs():
        truncate(folder / f"epoch-{epoch:05d}" / "tensors.safetensors")
    with pytest.raises(
        CheckpointError, match=r"all 3 checkpoints are broken; remove the folder to start this run anew"
    ):
        load_newest(store)
    assert len(warnings) == 3


class CrashError(Exception):
    pass


LOCAL_STEPS = ["safetensors", "state.json", "manifest.json", "rename"]


@pytest.mark.parametrize("moment", LOCAL_STEPS)
def test_a_crash_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Whenever the process dies while it saves, the previous checkpoint is the newest that can be seen."""
    store = filled(Location.of(tmp_path), 2)
    visible: list[list[int]] = []

    def crash() -> None:
        visible.append(store.epochs())
        raise CrashError

    if moment == "safetensors":
        monkeypatch.setattr("braidrec.training.checkpoint.save_file", lambda *_: crash())
    elif moment == "rename":
        monkeypatch.setattr(os, "rename", lambda *_: crash())
    else:
        write = Path.write_text
        monkeypatch.setattr(
            Path,
            "write_text",
            lambda path, *args, **named: crash() if path.name == moment else write(path, *args, **named),
        )
    with pytest.raises(CrashError):
        store.save(tensors(3), state(3))
    monkeypatch.undo()
    assert visible == [[1, 2]]
    loaded = load_newest(store)
    assert loaded is not None and loaded[1] == state(2)


def test_a_killed_process_leaves_a_remainder_that_the_next_save_clears(tmp_path: Path) -> None:
    store = filled(Location.of(tmp_path), 2)
    remainder = tmp_path / ".saving-abc" / "epoch-00003"
    shutil.copytree(tmp_path / "epoch-00002", remainder)
    assert store.epochs() == [1, 2]
    store.save(tensors(3), state(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["epoch-00001", "epoch-00002", "epoch-00003"]


@pytest.mark.parametrize("uploads", [0, 1, 2])
def test_an_upload_that_breaks_off_is_not_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uploads: int
) -> None:
    """Without a rename, the manifest comes last: whatever of a checkpoint has arrived before it does not count."""
    warnings: list[str] = []
    store = filled(Remote(tmp_path / "bucket").location, 2, warnings)
    copy, done = pafs.copy_files, []

    def break_off(*arguments: object, **named: object) -> None:
        if len(done) == uploads:
            raise CrashError
        done.append(arguments)
        copy(*arguments, **named)

    monkeypatch.setattr(pafs, "copy_files", break_off)
    with pytest.raises(CrashError):
        store.save(tensors(3), state(3))
    monkeypatch.undo()
    loaded = load_newest(store)
    assert loaded is not None and loaded[1] == state(2)
    assert len(warnings) == (1 if uploads else 0)


def test_the_manifest_says_what_sha256sum_and_ls_would(tmp_path: Path) -> None:
    filled(Location.of(tmp_path), 1)
    folder = tmp_path / "epoch-00001"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    manifest = json.loads((folder / "manifest.json").read_text())
    import hashlib

    for name in ("state.json", "tensors.safetensors"):
        content = (folder / name).read_bytes()
        assert manifest[name] == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_prefixes() -> None:
    whole = prefixed("table", {"id": torch.ones(1)}) | prefixed("optimizer", {"0/0/step": torch.zeros(1)})
    assert sorted(whole) == ["optimizer:0/0/step", "table:id"]
    assert sorted(with_prefix("table", whole)) == ["id"]
    assert sorted(with_prefix("optimizer", whole)) == ["0/0/step"]
