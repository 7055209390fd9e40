"""The distinct values of an array, by sorting."""

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Scalar = TypeVar("Scalar", bound=np.generic)


def distinct(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """Each value once, ascending: what `np.unique` answers for a column of numbers without NaN.

    NumPy from 2.3 on finds distinct integers by hashing before it sorts them, which took 9 to 20 times as long as
    sorting here (two million: 2.4 s against 0.12 s).

    Args:
        values: `[n]`.
    """
    ordered: NDArray[Any] = np.sort(values)
    if not len(ordered):
        return ordered
    first = np.empty(len(ordered), dtype=bool)
    first[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]
