"""One memory-mapped copy of a relation per node, whatever the number of workers."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from braidrec.graph.relation import Relation
from braidrec.mapped import DamagedError, Draft, Mapped, shared_arrays

FORMAT = "braidrec-relation-4"
MANIFEST = "relation.json"


def shared_relation(folder: Path, key: str, build: Callable[[], Relation], *, symmetric: bool) -> Relation:
    """Map the relation stored under `key`, building and storing it first if it is not there or damaged.

    Args:
        folder: the node's cache folder.
        key: anything that identifies the content (a digest of the edges).
        build: called at most once, only if nothing usable is stored.
        symmetric: what the relation that `build` returns is; part of the key.
    Warns:
        UserWarning: a stored relation is damaged. It is built again.
    """

    def store(draft: Draft) -> Mapping[str, Any]:
        relation = build()
        assert relation.symmetric == symmetric
        draft.save("indptr.npy", relation.indptr)
        draft.save("indices.npy", relation.indices)
        if relation.weight is not None:
            draft.save("weight.npy", relation.weight)
        # Four bytes a node, which no worker should have to keep for itself.
        draft.save("factors.npy", relation.inverse_sqrt_in_degree.numpy())
        return {"name": relation.name, "weights_are_final": relation.weights_are_final}

    full_key = f"{FORMAT}:{symmetric}:{key}"
    read = partial(_relation, symmetric=symmetric)
    return shared_arrays(folder, full_key, store, read, manifest=MANIFEST, what="relation")


def _relation(mapped: Mapped, *, symmetric: bool) -> Relation:
    try:
        name, final = mapped.facts["name"], mapped.facts["weights_are_final"]
        indptr, indices = mapped.arrays["indptr.npy"], mapped.arrays["indices.npy"]
        factors = mapped.arrays["factors.npy"]
    except KeyError as error:
        raise DamagedError(f"{mapped.folder} is damaged ({error})") from error
    if indptr.dtype != indices.dtype or indptr[-1] != len(indices):
        raise DamagedError(
            f"{mapped.folder}: indptr.npy ends at {indptr[-1]:,}, indices.npy holds {len(indices):,} edges"
        )
    weight = mapped.arrays.get("weight.npy")
    if (final and weight is None) or (weight is not None and len(weight) != len(indices)):
        raise DamagedError(f"{mapped.folder}: weight.npy does not belong to indices.npy")
    if len(factors) != len(indptr) - 1 or factors.dtype != np.float32:
        raise DamagedError(f"{mapped.folder}: factors.npy does not belong to indptr.npy")
    return Relation(
        name,
        indptr,
        indices,
        symmetric=symmetric,
        weight=weight,
        weights_are_final=final,
        inverse_sqrt_in_degree=factors,
    )
