"""One memory-mapped copy of a relation per node, whatever the number of workers."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from braidrec.graph.relation import Relation

FORMAT = "braidrec-relation-1"


def shared_relation(folder: Path, key: str, build: Callable[[], Relation], *, symmetric: bool) -> Relation:
    """Map the relation stored under `key`, building and storing it first if it is not there.

    The key names the content (a digest of the edges), so a changed data set never finds an old graph. The files appear
    under their final name in one rename; of several processes that build at once, one wins and all map its files.

    Args:
        folder: the node's cache folder.
        key: anything that identifies the content; hashed into the file name.
        build: called at most once, only if nothing is stored.
    """
    target = folder / hashlib.sha256(f"{FORMAT}:{key}".encode()).hexdigest()[:32]
    if not target.is_dir():
        _store(build(), target)
    name = (target / "name").read_text(encoding="utf-8")
    return Relation(name, _map(target / "indptr.npy"), _map(target / "indices.npy"), symmetric=symmetric)


def _store(relation: Relation, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=target.parent))
    try:
        np.save(temporary / "indptr.npy", relation.indptr)
        np.save(temporary / "indices.npy", relation.indices)
        (temporary / "name").write_text(relation.name, encoding="utf-8")
        os.rename(temporary, target)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        if not target.is_dir():  # else another process was faster, and its files hold the same content
            raise


def _map(path: Path) -> NDArray[Any]:
    # Copy-on-write: torch wants writable memory to wrap; nobody writes, so the pages stay shared with the page cache.
    mapped: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return mapped
