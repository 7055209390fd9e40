"""One memory-mapped copy of large arrays per node, whatever the number of workers."""

import fcntl
import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

SIZES = "bytes"
"""Where a manifest says the size of each file."""

KEY_LETTERS = 32
"""Of the name of a key's folder."""

T = TypeVar("T")


class DamagedError(Exception):
    """Stored arrays are not what was written."""


@dataclass(frozen=True, kw_only=True)
class Mapped:
    """Arrays as they lie on the disk.

    Attributes:
        folder: where.
        arrays: by file name. They may be written to, which changes no file and no other process's view.
        facts: what the builder said about them.
    """

    folder: Path
    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]


class Draft:
    """A folder into which a builder puts its arrays. Every file is either not there or whole, on the disk too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sizes: dict[str, int] = {}

    def save(self, name: str, array: NDArray[Any]) -> None:
        """Store an array that is held in memory."""
        self._write(name, partial(np.save, arr=array))

    @contextmanager
    def create(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Iterator[NDArray[Any]]:
        """An array of zeros on the disk, to be filled inside the block, however much larger than memory.

        Its space is reserved first: what would be a SIGBUS while writing into a mapped file is an OSError here.
        """
        with self._temporary(name) as temporary:
            array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
            with open(temporary, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
                yield array
                array.flush()
                os.fsync(file.fileno())

    def finish(self, manifest: str, facts: Mapping[str, Any]) -> None:
        """Write the manifest, which makes the rest valid."""
        content = json.dumps({**facts, SIZES: self.sizes})
        self._write(manifest, lambda file: file.write(content.encode()))

    def _write(self, name: str, write: Callable[[IO[bytes]], Any]) -> None:
        with self._temporary(name) as temporary, open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _temporary(self, name: str) -> Iterator[Path]:
        """A file beside `name` that takes its place when the block ends well, and disappears otherwise."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = _locked_file(self.folder, f".{name}-")
        try:
            yield Path(temporary)
            self.sizes[name] = os.stat(temporary).st_size
            os.replace(temporary, self.folder / name)
        except BaseException:
            os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)


def _locked_file(folder: Path, prefix: str) -> tuple[int, str]:
    """A new file, and a descriptor of it that holds a lock: the system lets go of it however this process ends."""
    while True:
        descriptor, path = tempfile.mkstemp(prefix=prefix, dir=folder)
        with suppress(OSError):  # a file system without locks, on which nothing can be locked to be swept either
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.exists(path):
            return descriptor, path
        os.close(descriptor)  # between the two lines it looked like one that a dead process left


def _sweep(cache: Path) -> None:
    """Unlink what processes that were killed left unfinished, under whatever key: nobody holds its lock."""
    for path in cache.glob(f"{'[0-9a-f]' * KEY_LETTERS}/.*-*"):
        try:
            descriptor = os.open(path, os.O_RDWR)
        except OSError:  # has been finished meanwhile, or is another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        except OSError:  # somebody writes it
            pass
        finally:
            os.close(descriptor)


def shared_arrays(
    cache: Path,
    key: str,
    build: Callable[[Draft], Mapping[str, Any]],
    read: Callable[[Mapped], T],
    *,
    manifest: str,
    what: str,
) -> T:
    """Map the arrays stored under `key`, building and storing them first if they are not there or damaged.

    The key names the content, so that changed data never finds an old copy. Every file appears complete, by a rename,
    and the manifest with the sizes of the others comes last: what a crash or a full disk left behind is not taken for
    a copy. Before anything is built, unfinished files of killed processes are removed from the whole cache. Processes
    that store one key at once write equal files, so it does not matter whose stay; a file that is mapped already lives
    on when another takes its name.

    Args:
        cache: the node's cache folder.
        key: anything that identifies the content and its format; hashed into the folder's name.
        build: puts the arrays into the draft and answers with facts for the manifest; called at most once, only if
            nothing usable is stored.
        read: turns what is mapped into what the caller wants; raises DamagedError where it does not belong together.
        manifest: name of the manifest's file.
        what: the thing that is stored, in a word, for the warning.
    Warns:
        UserWarning: stored arrays are damaged (a file is missing, has another size or another header than when it was
            written). They are built again.
    """
    target = cache / hashlib.sha256(key.encode()).hexdigest()[:KEY_LETTERS]
    if (target / manifest).is_file():
        try:
            return read(_map(target, manifest))
        except DamagedError as damage:
            warnings.warn(f"{damage}; the {what} is built again", stacklevel=3)
    _sweep(cache)
    draft = Draft(target)
    facts = build(draft)
    draft.finish(manifest, facts)
    return read(_map(target, manifest))


def once_per_node(make: Callable[[], T], *, local_rank: int, barrier: Callable[[], None]) -> T:
    """`make` on local rank 0 of every node; the others wait, and then call it to map what lies there.

    If local rank 0 fails the others are let go, to fail in the same way, instead of waiting for their time limit.

    Args:
        barrier: waits until every rank is here.
    """
    if local_rank != 0:
        barrier()
        return make()
    try:
        made = make()
    except Exception:
        barrier()
        raise
    barrier()
    return made


def _map(target: Path, manifest: str) -> Mapped:
    try:
        facts = json.loads((target / manifest).read_text(encoding="utf-8"))
        arrays = {}
        for file, wanted in facts.pop(SIZES).items():
            seen = (target / file).stat().st_size
            if seen != wanted:
                raise DamagedError(f"{target / file} has {seen:,} bytes, {wanted:,} were written")
            # Copy-on-write: torch wants writable memory to wrap; nobody writes, so the pages stay shared with the
            # page cache.
            arrays[file] = np.load(target / file, mmap_mode="c", allow_pickle=False)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(f"{target} is damaged ({error})") from error
    return Mapped(folder=target, arrays=arrays, facts=facts)
