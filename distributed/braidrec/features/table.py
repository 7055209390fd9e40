"""The vectors of one modality by row, mapped from the node's disk and shared by all its workers."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braidrec.data.description import Side
from braidrec.mapped import DamagedError, Draft, Mapped, shared_arrays

FORMAT = "braidrec-features-1"
MANIFEST = "features.json"
VALUES, PRESENT, LENGTHS = "values.npy", "present.npy", "lengths.npy"
BLOCK_BYTES = 64 << 20
"""Memory that a pass over a table takes at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureTable:
    """One modality of the items, or of the users. Row i belongs to item (user) i.

    Attributes:
        name: the modality.
        side: whose vectors these are.
        shape: of one vector; `(dim,)`, or `(components, dim)` for regions, frames or tokens, which are stored flat.
        values: `[num_rows, dim]` fp16 or fp32, as they were stored. The row of an absent item is zero, unless a policy
            of `features.impute` filled it.
        present: `[num_rows]` bool: who has the modality. Filling changes nothing here.
        content_key: hash of what the values were made from; caches of what is made from them are keyed by it.
        provenance: where the values come from, for a run's record.
        hidden: `[num_rows]` bool: rows that are stored but are treated as absent; None hides nothing.
        lengths: `[num_rows]` int32: how many components a row has, whose others are zeros; None: all have all.
    """

    name: str
    side: Side
    shape: tuple[int, ...]
    values: NDArray[Any]
    present: NDArray[np.bool_]
    content_key: str
    provenance: Mapping[str, Any]
    hidden: NDArray[np.bool_] | None = None
    lengths: NDArray[np.int32] | None = None

    @property
    def num_rows(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        """Numbers per vector: the product of `shape`."""
        return int(self.values.shape[1])

    @cached_property
    def component_counts(self) -> NDArray[np.int32]:
        """`[num_rows]` components of each row; 0 for an absent one, 1 for a single vector."""
        most = np.int32(self.dim // self.shape[-1])
        counts: NDArray[np.int32] = np.where(self.present, most if self.lengths is None else self.lengths, 0)
        return counts.astype(np.int32)

    @property
    def coverage(self) -> float:
        """Share of the rows that are present."""
        return float(self.present.mean()) if self.num_rows else 0.0

    @property
    def rows_per_block(self) -> int:
        """How many rows, as fp32, are read at a time where all are read."""
        return max(1, BLOCK_BYTES // (4 * self.dim))

    def rows(self, indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Vectors and presence of some rows.

        Args:
            indices: `[n]` int64 on any device; None: all rows in order, on the CPU.
        Returns:
            `[n, dim]` fp32 and `[n]` bool, on the device of `indices`. All rows of an fp32 table are the mapped memory
            itself, so nobody may write to them.
        Raises:
            IndexError: an index outside the table.
        """
        if indices is None:
            values = self._values.float()
            return (values if self._hidden is None else values.masked_fill(self._hidden, 0.0)), self._present
        places = indices.cpu()
        values = self._values.index_select(0, places).float()
        if self._hidden is not None:
            values.masked_fill_(self._hidden.index_select(0, places), 0.0)
        return values.to(indices.device), self._present.index_select(0, places).to(indices.device)

    def read(self, rows: slice | NDArray[np.int64], columns: slice = slice(None)) -> NDArray[np.float32]:
        """A copy of some rows, `[n, dim]` fp32, for whoever goes through all of them by blocks."""
        values = np.array(self.values[rows, columns], dtype=np.float32)
        if self.hidden is not None:
            values[self.hidden[rows]] = 0.0
        return values

    def without(self, hidden: NDArray[np.bool_]) -> "FeatureTable":
        """The table as it would be if some rows did not have the modality; nothing is copied.

        Args:
            hidden: `[num_rows]` bool.
        """
        check_mask("hidden", hidden, self.num_rows)
        lost = hidden if self.hidden is None else hidden | self.hidden
        taken = int((self.present & hidden).sum())
        return replace(
            self,
            present=self.present & ~hidden,
            hidden=lost,
            content_key=derived_key(self.content_key, {"without": mask_digest(hidden)}),
            provenance={"kind": "hidden", "rows": taken, "source": dict(self.provenance)},
        )

    @cached_property
    def _values(self) -> Tensor:
        return torch.from_numpy(self.values)

    @cached_property
    def _present(self) -> Tensor:
        return torch.from_numpy(self.present)

    @cached_property
    def _hidden(self) -> Tensor | None:
        return None if self.hidden is None else torch.from_numpy(self.hidden).unsqueeze(-1)


Fill = Callable[[NDArray[Any], NDArray[np.bool_], NDArray[np.int32]], Mapping[str, Any]]
"""Writes `values`, `present` and, of a ragged table, `lengths`, all zero so far, and answers with the provenance."""


def store_table(
    cache: Path,
    content_key: str,
    fill: Fill,
    *,
    name: str,
    side: Side,
    num_rows: int,
    shape: tuple[int, ...],
    dtype: str,
    ragged: bool = False,
) -> FeatureTable:
    """Map the table stored under `content_key`, having it filled and stored first if it is not there or damaged.

    Args:
        cache: the node's cache folder.
        fill: called at most once, with an array on the disk, so that no table has to fit into memory.
        dtype: "float16" or "float32".
        ragged: rows have different numbers of components.
    Warns:
        UserWarning: the stored table is damaged. It is built again.
    """
    dim = int(np.prod(shape))

    def build(draft: Draft) -> Mapping[str, Any]:
        present, lengths = np.zeros(num_rows, np.bool_), np.zeros(num_rows, np.int32)
        with draft.create(VALUES, np.dtype(dtype), (num_rows, dim)) as values:
            provenance = fill(values, present, lengths)
        draft.save(PRESENT, present)
        if ragged:
            draft.save(LENGTHS, lengths)
        return {"provenance": dict(provenance)}

    def read(mapped: Mapped) -> FeatureTable:
        values, present, lengths = _checked(mapped, (num_rows, dim), dtype, ragged=ragged)
        return FeatureTable(
            name=name,
            side=side,
            shape=shape,
            values=values,
            present=present,
            content_key=content_key,
            provenance=mapped.facts["provenance"],
            lengths=lengths,
        )

    return shared_arrays(cache, f"{FORMAT}:{content_key}", build, read, manifest=MANIFEST, what="feature table")


def derive_table(
    source: FeatureTable,
    cache: Path,
    recipe: Mapping[str, Any],
    fill: Callable[[NDArray[Any]], Mapping[str, Any]],
    *,
    shape: tuple[int, ...] | None = None,
) -> FeatureTable:
    """An fp32 table made from another one, with the same rows present.

    Args:
        recipe: what is done to the source, in plain JSON values: with the source's key it is the new table's.
        fill: writes the values and answers with what is to be known about them.
        shape: of a vector; None: the source's.
    Raises:
        ValueError: the source's rows have different numbers of components.
    """
    if source.lengths is not None:
        raise ValueError(
            f"modality {source.name!r} has more components in one {source.side} than in another, and is used as it is: "
            "no transform, and missing=token, zeros or mask"
        )

    def fill_both(values: NDArray[Any], present: NDArray[np.bool_], lengths: NDArray[np.int32]) -> Mapping[str, Any]:
        present[:] = source.present
        facts = fill(values)
        return {"kind": "derived", "recipe": dict(recipe), **facts, "source": dict(source.provenance)}

    return store_table(
        cache,
        derived_key(source.content_key, recipe),
        fill_both,
        name=source.name,
        side=source.side,
        num_rows=source.num_rows,
        shape=source.shape if shape is None else shape,
        dtype="float32",
    )


def derived_key(content_key: str, recipe: Mapping[str, Any]) -> str:
    """Hash of a source and of what is done to it."""
    return hashlib.sha256(f"{content_key}:{json.dumps(recipe, sort_keys=True)}".encode()).hexdigest()


def mask_digest(mask: NDArray[np.bool_]) -> str:
    """Hash of a set of rows."""
    return hashlib.sha256(len(mask).to_bytes(8, "little") + np.packbits(mask).tobytes()).hexdigest()


def check_mask(argument: str, mask: NDArray[np.bool_], num_rows: int) -> None:
    """
    Raises:
        ValueError: not one bool a row.
    """
    if mask.dtype != np.bool_ or mask.shape != (num_rows,):
        raise ValueError(f"{argument}: {mask.dtype} of shape {mask.shape}; wanted bool of shape ({num_rows},)")


def _checked(
    mapped: Mapped, shape: tuple[int, int], dtype: str, *, ragged: bool
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.int32] | None]:
    try:
        values, present = mapped.arrays[VALUES], mapped.arrays[PRESENT]
        lengths = mapped.arrays[LENGTHS] if ragged else None
        mapped.facts["provenance"]
    except KeyError as error:
        raise DamagedError(f"{mapped.folder} is damaged ({error})") from error
    wanted_of = [(values, (np.dtype(dtype), shape)), (present, (np.dtype(np.bool_), shape[:1]))]
    wanted_of += [] if lengths is None else [(lengths, (np.dtype(np.int32), shape[:1]))]
    for array, wanted in wanted_of:
        if (array.dtype, array.shape) != wanted:
            raise DamagedError(f"{mapped.folder}: {array.dtype} of shape {array.shape} where {wanted} was written")
    return values, present, lengths
