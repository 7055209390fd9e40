"""Which candidates are not beaten in quality by a cheaper one."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def pareto_front(quality: ArrayLike, costs: ArrayLike) -> NDArray[np.bool_]:
    """Marks the candidates that no other dominates (Pareto, 1906).

    One dominates another if it is at least as good in quality and in every cost, and better in one of them. Equal ones
    are on the front together.

    Args:
        quality: [n], higher is better.
        costs: [n] or [n, kinds], lower is better.
    Returns:
        [n]; a candidate with NaN anywhere is not on the front and dominates nothing.
    """
    columns = np.asarray(costs, dtype=np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    points = np.concatenate([-np.asarray(quality, dtype=np.float64)[:, None], columns], axis=1)
    known = ~np.isnan(points).any(axis=1)
    front = np.zeros(len(points), dtype=bool)
    # In this order whatever dominates a point stands before it, so that the front alone needs looking at.
    for index in np.lexsort(points.T[::-1]):
        if known[index]:
            rivals = points[front]
            no_worse, better = (rivals <= points[index]).all(axis=1), (rivals < points[index]).any(axis=1)
            front[index] = not (no_worse & better).any()
    return front
