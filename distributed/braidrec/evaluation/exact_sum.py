"""Sums of floats that do not depend on the order: any partition of the terms adds up to the same bits.

Each term is split into four parts on the grids 1, 2⁻²⁴, 2⁻⁴⁸ and 2⁻⁷² (what is below 2⁻⁷³ is rounded away). Parts on
one grid are small whole multiples of it, so that float64 adds up to 2³⁰ of them without any rounding. The idea is that
of reproducible summation (Demmel and Nguyen, "Parallel Reproducible Summation", IEEE Trans. Computers 2015), with
fixed grids because metrics are of order 1. A magnitude beyond 2²³ is still summed correctly, to float64's rounding.

With it, metrics of one worker and of N workers agree exactly, also through a plain all-reduce.
"""

import numpy as np
from numpy.typing import NDArray

_GRIDS = (1.0, 2.0**-24, 2.0**-48, 2.0**-72)
WIDTH = 1 + len(_GRIDS)

Floats = NDArray[np.float64]


def exact_sums(values: Floats, groups: NDArray[np.integer] | None = None, num_groups: int = 1) -> Floats:
    """Count and sum of the values per group, in a form that may be added: [num_groups, WIDTH].

    Args:
        values: [n]; NaN means undefined and is left out, of the count too.
        groups: [n] of 0 … num_groups − 1; a negative one is left out. None puts all in group 0.
        num_groups: rows of the result.
    """
    if groups is None:
        groups = np.zeros(len(values), dtype=np.int64)
    used = ~np.isnan(values) & (groups >= 0)
    rest, groups = values[used], groups[used]
    sums = np.empty((num_groups, WIDTH))
    sums[:, 0] = np.bincount(groups, minlength=num_groups)
    for column, grid in enumerate(_GRIDS, start=1):
        part = np.rint(rest / grid) * grid
        rest = rest - part
        sums[:, column] = np.bincount(groups, weights=part, minlength=num_groups)
    return sums


def mean(sums: Floats) -> Floats:
    """The mean per group, [...] for sums [..., WIDTH]; NaN where nothing was counted."""
    count = sums[..., 0]
    # From the finest grid to the coarsest, so that only the last addition rounds noticeably.
    total = sums[..., :0:-1].cumsum(axis=-1)[..., -1]
    means: Floats = np.divide(total, count, out=np.full(np.shape(count), np.nan), where=count > 0)
    return means
