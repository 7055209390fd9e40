"""Vectors of different numbers of components, as rows of one length."""

from typing import Any

import numpy as np
import numpy.typing as npt


def fits(lengths: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """`[n]` whether so many numbers are whole components, from one to as many as the shape has."""
    most, one = int(np.prod(shape)), shape[-1]
    good: npt.NDArray[np.bool_] = (lengths >= one) & (lengths <= most) & (lengths % one == 0)
    return good


def padded(flat: npt.NDArray[Any], lengths: npt.NDArray[Any], dim: int) -> npt.NDArray[Any]:
    """`[n, dim]` of all numbers one after the other; zeros follow a vector's last component.

    Args:
        flat: `[Σ lengths]`.
        lengths: `[n]`, none above `dim`.
    """
    rows = np.zeros((len(lengths), dim), flat.dtype)
    rows[np.arange(dim) < lengths[:, None]] = flat
    return rows
