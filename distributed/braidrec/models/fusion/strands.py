"""The strands of one fusion, in one order, and who has which."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Strands:
    """Rows by strand; those of an absent strand are zero.

    Attributes:
        rows: `[n, d_m]` by name, in alphabetical order.
        present: `[n, M]` bool, a column a strand in that order; None: every row has them all.
    """

    rows: Mapping[str, Tensor]
    present: Tensor | None

    @classmethod
    def of(cls, given: Mapping[str, Tensor], present: Mapping[str, Tensor], dims: Mapping[str, int]) -> "Strands":
        """Put the strands in order and set absent rows to zero.

        Args:
            given: `[n, d_m]` by name.
            present: `[n]` bool by name; a strand that is not in it is there in every row.
            dims: d_m by name.
        Raises:
            ValueError: other strands than `dims` names, other widths, or presence of a strand that there is not.
        """
        if given.keys() != dims.keys() or not present.keys() <= dims.keys():
            raise ValueError(
                f"strands {sorted(given)} with presence of {sorted(present)} were given; wanted {sorted(dims)}"
            )
        names = sorted(dims)
        for name in names:
            if given[name].shape[-1] != dims[name]:
                raise ValueError(f"strand {name!r} has width {given[name].shape[-1]}; wanted {dims[name]}")
        if not present:
            return cls(rows={name: given[name] for name in names}, present=None)
        everywhere = torch.ones_like(next(iter(present.values())))
        mask = torch.stack([present.get(name, everywhere) for name in names], dim=-1)
        rows = {
            name: given[name].masked_fill(~present[name].unsqueeze(-1), 0.0) if name in present else given[name]
            for name in names
        }
        return cls(rows=rows, present=mask)

    def scaled(self, weights: Tensor) -> "Strands":
        """Each strand times its column of `weights` `[n, M]`."""
        columns = weights.unsqueeze(-2).unbind(-1)
        rows = {
            name: rows * column.to(rows.dtype) for (name, rows), column in zip(self.rows.items(), columns, strict=True)
        }
        return Strands(rows=rows, present=self.present)


def check_names(names: Sequence[str]) -> None:
    """
    Raises:
        ValueError: no strand, or a name that torch does not take for parameters.
    """
    if not names:
        raise ValueError("a fusion needs at least one strand")
    for name in names:
        if not name or "." in name:
            raise ValueError(f"strand {name!r}: a name must not be empty nor hold a dot")


def parameter_name(strand: str) -> str:
    """Under which its parameters are found; a bare name might be that of a method."""
    return f"of_{strand}"
