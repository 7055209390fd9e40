"""Checkpoints: safetensors and JSON, complete or not there, verified before they are believed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.fs as pafs
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from braidrec.data.storage import HASH_CHUNK_BYTES, Location
from braidrec.errors import CheckpointError

MANIFEST = "manifest.json"
STATE = "state.json"
TENSORS = "tensors.safetensors"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The position of a run. With the seed in its configuration it also is the state of every random generator.

    Attributes:
        epoch: the last finished epoch, from 1.
        global_step: steps taken.
        best_epoch, best_value: of the monitored validation metric; 0 and None before the first validation.
        stale_validations: validations since the best one.
        config_hash: of the configuration that produced it.
    """

    epoch: int
    global_step: int
    best_epoch: int
    best_value: float | None
    stale_validations: int
    config_hash: str


class CheckpointStore:
    """The checkpoints of one run: `<folder>/epoch-00012/{tensors.safetensors, state.json, manifest.json}`.

    A checkpoint is written to a temporary folder and appears under its name in one rename; on object stores, which
    have no rename, the manifest with sizes and SHA-256 is uploaded last. Without a manifest that fits, a checkpoint
    does not exist.

    Args:
        folder: where, local or on any pyarrow filesystem.
        warn: told when a checkpoint is found broken.
        keep: how many of the newest stay, beside the best; more than one, so that a broken one has a predecessor.
    """

    def __init__(self, folder: Location, *, warn: Callable[[str], None], keep: int = 2) -> None:
        self.folder, self._warn, self._keep = folder, warn, keep

    def save(self, tensors: Mapping[str, Tensor], state: RunState) -> None:
        """Write the checkpoint of `state.epoch`, then remove those that are neither new nor best."""
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=self._scratch()) as name:
            staging = Path(name) / _folder_name(state.epoch)
            staging.mkdir()
            contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            save_file(contiguous, staging / TENSORS)
            (staging / STATE).write_text(json.dumps(asdict(state), indent=1), encoding="utf-8")
            manifest = {file: _fingerprint(staging / file) for file in (TENSORS, STATE)}
            (staging / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            self._publish(staging, self.folder.child(staging.name))
        self._prune(state)

    def epochs(self) -> list[int]:
        """Epochs of which there is a checkpoint, complete or not, ascending."""
        names = {relative.partition("/")[0] for relative in self.folder.files()}
        return sorted(int(name[6:]) for name in names if name.startswith("epoch-") and name[6:].isdigit())

    def newest_good(self) -> int:
        """Epoch of the newest good checkpoint; broken ones are skipped with a warning. 0 if there is none at all.

        Raises:
            CheckpointError: there are checkpoints and all of them are broken.
        """
        epochs = self.epochs()
        for epoch in reversed(epochs):
            if self.is_good(epoch, instead="falling back to the one before it"):
                return epoch
        if epochs:
            raise CheckpointError(
                f"{self.folder.uri}: all {len(epochs)} checkpoints are broken; remove the folder to start this run anew"
            )
        return 0

    def is_good(self, epoch: int, *, instead: str) -> bool:
        """Whether the checkpoint is whole; if not, a warning says what is wrong with it and what happens `instead`."""
        try:
            self.load(epoch)
        except CheckpointError as error:
            self._warn(f"{error}; {instead}")
            return False
        return True

    def load(self, epoch: int) -> tuple[dict[str, Tensor], RunState]:
        """Verify and read one checkpoint.

        Raises:
            CheckpointError: not there, incomplete, or its content is not what was written.
        """
        where = self.folder.child(_folder_name(epoch))
        with tempfile.TemporaryDirectory(prefix="braidrec-checkpoint-") as name:
            local = Path(where.path) if where.is_local else Path(name)
            try:
                if not where.is_local:
                    pafs.copy_files(where.path, name, source_filesystem=where.filesystem)
                manifest = json.loads((local / MANIFEST).read_text(encoding="utf-8"))
                for file in (TENSORS, STATE):
                    if _fingerprint(local / file) != manifest[file]:
                        raise CheckpointError(
                            f"{where.uri}/{file} is damaged: its size or SHA-256 is not what was written"
                        )
                state = RunState(**json.loads((local / STATE).read_text(encoding="utf-8")))
                return load_file(local / TENSORS), state
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                raise CheckpointError(
                    f"{where.uri} is not a complete checkpoint ({type(error).__name__}: {error})"
                ) from None

    def _scratch(self) -> str | None:
        """Beside the target if that is local, so that the rename stays on one filesystem."""
        if not self.folder.is_local:
            return None
        Path(self.folder.path).mkdir(parents=True, exist_ok=True)
        return self.folder.path

    def _publish(self, staging: Path, target: Location) -> None:
        target.remove()
        if target.is_local:
            _sync(staging)
            os.rename(staging, target.path)
            _sync_folder(Path(target.path).parent)
            return
        target.filesystem.create_dir(target.path, recursive=True)
        for file in (TENSORS, STATE, MANIFEST):
            pafs.copy_files(str(staging / file), f"{target.path}/{file}", destination_filesystem=target.filesystem)

    def _prune(self, state: RunState) -> None:
        epochs = self.epochs()
        for epoch in epochs[: -self._keep]:
            if epoch != state.best_epoch:
                self.folder.child(_folder_name(epoch)).remove()
        if self.folder.is_local:  # what a killed process left half-written
            for leftover in Path(self.folder.path).glob(".saving-*"):
                shutil.rmtree(leftover, ignore_errors=True)


def _folder_name(epoch: int) -> str:
    return f"epoch-{epoch:05d}"


def _fingerprint(path: Path) -> dict[str, int | str]:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _sync(folder: Path) -> None:
    """Force the files to the disk, so that a crash of the machine after the rename finds them whole."""
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under `prefix:name`."""
    return {f"{prefix}:{name}": tensor for name, tensor in tensors.items()}


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `prefixed`: the tensors of one prefix under their own names."""
    return {name.partition(":")[2]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}:")}
