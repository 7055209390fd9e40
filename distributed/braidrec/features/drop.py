"""Taking a modality away from a share of those who have it, to see what a model is worth without it."""

import numpy as np
from numpy.typing import NDArray

from braidrec.data.writer import mix64


def drop(present: NDArray[np.bool_], rate: float, seed: int) -> NDArray[np.bool_]:
    """The rows that lose the modality: the share `rate` of the present ones, rounded half up.

    Rows are taken in the order of a hash of row and seed. So the rows of a smaller rate are among those of a larger
    one, for the same presence and seed, and every process finds the same. `FeatureTable.without` takes the result.

    Args:
        present: `[num_rows]`.
        rate: from 0 to 1.
        seed: another one for each modality, or they are all lost by the same items.
    Returns:
        `[num_rows]` bool.
    Raises:
        ValueError: a rate that is no share.
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"rate={rate}: must be from 0 to 1")
    rows = np.flatnonzero(present)
    order = np.argsort(mix64(rows.astype(np.uint64), seed))
    lost = np.zeros(len(present), np.bool_)
    lost[rows[order[: int(rate * len(rows) + 0.5)]]] = True
    return lost
