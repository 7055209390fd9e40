"""Vectors of several components (regions, frames, tokens) as Parquet has them: lists of lists of numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from braidrec.data.errors import DatasetError


@dataclass(frozen=True, kw_only=True)
class ComponentRows:
    """Some rows of a column of components.

    Attributes:
        numbers: `[Σ counts, dim]` all components, one row's after the other's.
        counts: `[rows]` how many each row has, at least one.
    """

    numbers: npt.NDArray[Any]
    counts: npt.NDArray[np.int64]

    def lists(self, kept: npt.NDArray[np.bool_]) -> Any:
        """`list<float>` of some rows, each row's components one after the other."""
        counts = self.counts[kept]
        numbers = self.numbers[np.repeat(kept, self.counts)]
        ends = np.concatenate([[0], np.cumsum(counts * self.numbers.shape[1])])
        return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(numbers.reshape(-1)))


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is one of lists, whatever their lengths."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def holds_components(kind: Any) -> bool:
    """Whether an Arrow type is lists of lists of floating-point numbers."""
    return is_list(kind) and is_list(kind.value_type) and bool(pa.types.is_floating(kind.value_type.value_type))


def component_rows(column: Any, *, dim: int, dtype: str, uri: str, first_row: int, side: str) -> ComponentRows:
    """The components of a column of lists of lists.

    Args:
        dim: numbers that each component must have.
        dtype: of the numbers that are returned.
        uri, first_row, side: for messages: the file, the column's first row in it, item or user.
    Raises:
        DatasetError: a row without components, a component of another length, a number that is missing or not finite.
    """
    outer = _as_lists(column)
    counts = pc.fill_null(pc.list_value_length(outer), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise DatasetError(
            f"{uri}, row {first_row + int(empty[0])}: no component; leave the {side} out of the file if it has none"
        )
    inner = _as_lists(outer.flatten())
    ends = np.cumsum(counts)

    def of_row(component: int) -> str:
        row = int(np.searchsorted(ends, component, side="right"))
        return f"{uri}, row {first_row + row}: component {component - int(ends[row] - counts[row])}"

    lengths = pc.fill_null(pc.list_value_length(inner), 0).to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(lengths != dim)
    if len(wrong):
        raise DatasetError(
            f"{of_row(int(wrong[0]))} has {lengths[wrong[0]]} numbers, the first one of the file has {dim}; the "
            "components of all rows must have the same"
        )
    wanted = pa.float16() if dtype == "float16" else pa.float32()
    with np.errstate(over="ignore"):
        numbers = inner.flatten().cast(wanted).to_numpy(zero_copy_only=False).reshape(-1, dim)
    bad = np.flatnonzero(~np.isfinite(numbers).all(1))
    if len(bad):
        place = int(np.argmin(np.isfinite(numbers[bad[0]])))
        raise DatasetError(
            f"{of_row(int(bad[0]))} holds {numbers[bad[0], place]} at place {place} ({len(bad)} such components among "
            f"{len(numbers)}); leave the component or the {side} out"
        )
    return ComponentRows(numbers=numbers, counts=counts)


def _as_lists(column: Any) -> Any:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    return column.cast(pa.list_(kind.value_type)) if pa.types.is_fixed_size_list(kind) else column
