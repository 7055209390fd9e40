"""Checkpoints: safetensors and JSON, complete or not there, verified before they are believed."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow.fs as pafs
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from braidrec.data.storage import HASH_CHUNK_BYTES, Location
from braidrec.errors import CheckpointError
from braidrec.training.checkpoint_rows import (
    HeldRows,
    RowBlock,
    all_rows,
    part_name,
    parts_of,
    read_blocks,
    write_blocks,
)

MANIFEST = "manifest.json"
STATE = "state.json"
TENSORS = "tensors.safetensors"


@dataclass(frozen=True, kw_only=True)
class EpochSoFar:
    """What an epoch that is not over has come to. Its batches depend on how many ranks share them.

    Attributes:
        step: steps that are done.
        steps, world_size: of the epoch, and the ranks that take them.
        losses, weights: by term, sums over all ranks and steps.
        input_nodes: by rank, rows that it fetched.
        seconds: of training.
        phases: seconds by phase, of rank 0.
    """

    step: int
    steps: int
    world_size: int
    losses: tuple[float, ...]
    weights: tuple[float, ...]
    input_nodes: tuple[int, ...]
    seconds: float
    phases: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The position of a run. With the seed in its configuration it also is the state of every random generator.

    Attributes:
        epoch: the last finished epoch, from 1.
        global_step: steps taken.
        best_epoch, best_value: of the monitored validation metric; 0 and None before the first validation.
        stale_validations: validations since the best one.
        config_hash: of the configuration that produced it.
        so_far: of the epoch after it, where that had begun.
    """

    epoch: int
    global_step: int
    best_epoch: int
    best_value: float | None
    stale_validations: int
    config_hash: str
    so_far: EpochSoFar | None = None


class CheckpointStore:
    """The checkpoints of one run: `<folder>/epoch-00012/{tensors.safetensors, state.json, manifest.json}`.

    Tensors whose rows are dealt out over the ranks are in `rows-00000-of-00002.safetensors` and so on beside it, each
    written by its rank; the manifest says which rows are where, so that any number of ranks can read them back.

    A checkpoint is written to a temporary folder and appears under its name in one rename; on object stores, which
    have no rename, the manifest with sizes and SHA-256 is uploaded last. Without a manifest that fits, a checkpoint
    does not exist.

    Args:
        folder: where, local or on any pyarrow filesystem.
        warn: told when a checkpoint is found broken.
        keep: how many of the newest stay, beside the best; more than one, so that a broken one has a predecessor.
        unit: what is numbered; of "step" (`<folder>/step-00345`, the run's steps) the best epoch is none.
    """

    def __init__(
        self,
        folder: Location,
        *,
        warn: Callable[[str], None],
        keep: int = 2,
        unit: Literal["epoch", "step"] = "epoch",
    ) -> None:
        self.folder, self._warn, self._keep, self._unit = folder, warn, keep, unit

    def number(self, state: RunState) -> int:
        """What the checkpoint of a state is called."""
        return state.epoch if self._unit == "epoch" else state.global_step

    def begin(self, epoch: int) -> None:
        """Make room for the rows that the ranks are about to save. One rank does, and the others wait for it."""
        place = self._rows_place(epoch)
        place.remove()
        place.filesystem.create_dir(place.path, recursive=True)

    def save_rows(self, epoch: int, blocks: Mapping[str, RowBlock], *, rank: int, num_ranks: int) -> None:
        """Write one rank's rows, for the `save` that follows when all have."""
        place, file = self._rows_place(epoch), part_name(rank, num_ranks)
        with tempfile.TemporaryDirectory(prefix="braidrec-rows-") as name:
            written = (Path(place.path) if place.is_local else Path(name)) / file
            rows = write_blocks(written, blocks)
            entry = {**_fingerprint(written), "rows": rows}
            if not place.is_local:
                pafs.copy_files(str(written), f"{place.path}/{file}", destination_filesystem=place.filesystem)
        place.child(f"{file}.json").write_bytes(json.dumps(entry).encode())

    def save(self, tensors: Mapping[str, Tensor], state: RunState, *, num_parts: int = 0) -> None:
        """Write the checkpoint of `state.epoch`, then remove those that are neither new nor best.

        Args:
            num_parts: ranks that have saved rows, all of them since the last `begin`.
        """
        with tempfile.TemporaryDirectory(prefix=".saving-", dir=self._scratch()) as name:
            staging = Path(name) / self._folder_name(self.number(state))
            staging.mkdir()
            contiguous = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
            save_file(contiguous, staging / TENSORS)
            (staging / STATE).write_text(_as_json(state), encoding="utf-8")
            manifest: dict[str, Any] = {file: _fingerprint(staging / file) for file in (TENSORS, STATE)}
            manifest |= self._take_rows(self.number(state), num_parts, staging)
            (staging / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            self._publish(staging, self.folder.child(staging.name), anew=num_parts == 0)
        self._prune(state)

    def epochs(self) -> list[int]:
        """Epochs of which there is a checkpoint, complete or not, ascending."""
        names = {relative.partition("/")[0] for relative in self.folder.files()}
        numbers = [name.removeprefix(f"{self._unit}-") for name in names if name.startswith(f"{self._unit}-")]
        return sorted(int(number) for number in numbers if number.isdigit())

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
            with self._opened(epoch, all_rows):
                return True
        except CheckpointError as error:
            self._warn(f"{error}; {instead}")
            return False

    def state(self, epoch: int) -> RunState:
        """The state alone, of a whole checkpoint.

        Raises:
            CheckpointError: as for `load`.
        """
        with self._opened(epoch, all_rows) as (_, _, state):
            return state

    def load(
        self, epoch: int, held: HeldRows = all_rows, *, wanted: Callable[[str], bool] = lambda name: True
    ) -> tuple[dict[str, Tensor], RunState]:
        """Verify and read one checkpoint, or what one rank needs of it.

        Args:
            held: by name, the rows that are wanted of a tensor; of the others all.
            wanted: by name, whether a tensor is.
        Raises:
            CheckpointError: not there, incomplete, or its content is not what was written.
        """
        with self._opened(epoch, held) as (local, manifest, state):
            tensors = read_blocks(local, manifest, held, wanted)
            with safe_open(local / TENSORS, framework="pt") as opened:
                for name in filter(wanted, opened.keys()):
                    rows = held(name)
                    tensors[name] = (
                        opened.get_tensor(name) if rows is None else opened.get_slice(name)[rows.start : rows.stop]
                    )
            return tensors, state

    @contextmanager
    def _opened(self, epoch: int, held: HeldRows) -> Iterator[tuple[Path, dict[str, Any], RunState]]:
        """The files of a checkpoint that hold what is wanted, verified, in a folder on this machine."""
        where = self.folder.child(self._folder_name(epoch))
        with tempfile.TemporaryDirectory(prefix="braidrec-checkpoint-") as name:
            local = Path(where.path) if where.is_local else Path(name)

            def bring(file: str) -> Path:
                if not where.is_local:
                    pafs.copy_files(f"{where.path}/{file}", str(local / file), source_filesystem=where.filesystem)
                return local / file

            try:
                manifest = json.loads(bring(MANIFEST).read_text(encoding="utf-8"))
                for file in (TENSORS, STATE, *parts_of(manifest, held)):
                    found = _fingerprint(bring(file))
                    if found != {key: manifest[file][key] for key in found}:
                        raise CheckpointError(
                            f"{where.uri}/{file} is damaged: its size or SHA-256 is not what was written"
                        )
                state = _of_json((local / STATE).read_text(encoding="utf-8"))
                yield local, manifest, state
            except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
                raise CheckpointError(
                    f"{where.uri} is not a complete checkpoint ({type(error).__name__}: {error})"
                ) from None

    def _rows_place(self, epoch: int) -> Location:
        """Where the ranks leave their rows: out of sight, or where there is no rename, where they are to stay."""
        name = self._folder_name(epoch)
        return self.folder.child(f".saving-rows-{name}" if self.folder.is_local else name)

    def _folder_name(self, epoch: int) -> str:
        return f"{self._unit}-{epoch:05d}"

    def _take_rows(self, epoch: int, num_parts: int, staging: Path) -> dict[str, Any]:
        """What the manifest says of the ranks' files, which on a local disk move to the others."""
        place, entries = self._rows_place(epoch), {}
        for rank in range(num_parts):
            file = part_name(rank, num_parts)
            entries[file] = json.loads(place.child(f"{file}.json").read_bytes())
            place.child(f"{file}.json").remove()
            if place.is_local:
                os.replace(f"{place.path}/{file}", staging / file)
        return entries

    def _scratch(self) -> str | None:
        """Beside the target if that is local, so that the rename stays on one filesystem."""
        if not self.folder.is_local:
            return None
        Path(self.folder.path).mkdir(parents=True, exist_ok=True)
        return self.folder.path

    def _publish(self, staging: Path, target: Location, *, anew: bool) -> None:
        if anew or target.is_local:
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
        """Of higher numbers are those that were refused or broken when the run went back: older than this one."""
        epochs, newest = self.epochs(), self.number(state)
        kept = [epoch for epoch in epochs if epoch <= newest][-self._keep :]
        for epoch in epochs:
            if epoch not in kept and (self._unit == "step" or epoch != state.best_epoch):
                self.folder.child(self._folder_name(epoch)).remove()
        if self.folder.is_local:  # what a killed process left half-written
            for leftover in Path(self.folder.path).glob(".saving-*"):
                shutil.rmtree(leftover, ignore_errors=True)


def _as_json(state: RunState) -> str:
    plain = asdict(state)
    if state.so_far is None:
        del plain["so_far"]
    return json.dumps(plain, indent=1)


def _of_json(text: str) -> RunState:
    plain = json.loads(text)
    so_far = plain.pop("so_far", None)
    if so_far is None:
        return RunState(**plain)
    so_far |= {key: tuple(so_far[key]) for key in ("losses", "weights", "input_nodes")}
    return RunState(**plain, so_far=EpochSoFar(**so_far))


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
