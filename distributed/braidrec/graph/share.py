"""One memory-mapped copy of a relation per node, whatever the number of workers."""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from braidrec.graph.relation import Relation

FORMAT = "braidrec-relation-2"
MANIFEST = "relation.json"


def shared_relation(folder: Path, key: str, build: Callable[[], Relation], *, symmetric: bool) -> Relation:
    """Map the relation stored under `key`, building and storing it first if it is not there or damaged.

    The key names the content (a digest of the edges), so a changed data set never finds an old graph. Every file
    appears complete, by a rename, and the manifest with the sizes of the others comes last: what a crash or a full
    disk left behind is not taken for a relation. Processes that store one key at once write equal files, so it does
    not matter whose stay; a file that is mapped already lives on when another takes its name.

    Args:
        folder: the node's cache folder.
        key: anything that identifies the content; hashed into the folder's name.
        build: called at most once, only if nothing usable is stored.
        symmetric: what the relation that `build` returns is; part of the key.
    Warns:
        UserWarning: a stored relation is damaged (a file is missing, has another size or another header than when it
            was written). It is built again.
    """
    target = folder / hashlib.sha256(f"{FORMAT}:{symmetric}:{key}".encode()).hexdigest()[:32]
    if (target / MANIFEST).is_file():
        try:
            return _open(target, symmetric=symmetric)
        except _DamagedError as damage:
            warnings.warn(f"{damage}; the relation is built again", stacklevel=2)
    relation = build()
    assert relation.symmetric == symmetric
    _store(relation, target)
    return _open(target, symmetric=symmetric)


class _DamagedError(Exception):
    """A stored relation is not what was written."""


def _store(relation: Relation, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    arrays = {"indptr.npy": relation.indptr, "indices.npy": relation.indices}
    for name, array in arrays.items():
        _write(target / name, partial(np.save, arr=array))
    manifest = {"name": relation.name, "bytes": {name: (target / name).stat().st_size for name in arrays}}
    _write(target / MANIFEST, lambda file: file.write(json.dumps(manifest).encode()))


def _write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file so that it is either not there or whole, on the disk too."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _open(target: Path, *, symmetric: bool) -> Relation:
    try:
        manifest = json.loads((target / MANIFEST).read_text(encoding="utf-8"))
        name, sizes = manifest["name"], manifest["bytes"]
        for file, wanted in sizes.items():
            seen = (target / file).stat().st_size
            if seen != wanted:
                raise _DamagedError(f"{target / file} has {seen:,} bytes, {wanted:,} were written")
        indptr, indices = _map(target / "indptr.npy"), _map(target / "indices.npy")
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _DamagedError(f"{target} is damaged ({error})") from error
    if indptr.dtype != indices.dtype or indptr[-1] != len(indices):
        raise _DamagedError(f"{target}: indptr.npy ends at {indptr[-1]:,}, indices.npy holds {len(indices):,} edges")
    return Relation(name, indptr, indices, symmetric=symmetric)


def _map(path: Path) -> NDArray[Any]:
    # Copy-on-write: torch wants writable memory to wrap; nobody writes, so the pages stay shared with the page cache.
    mapped: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return mapped
