"""What strands counted, in a few numbers for a log."""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

QUANTILES = (0.1, 0.5, 0.9)


def attention_summary(
    names: Sequence[str],
    weights: Tensor,
    present: Mapping[str, Tensor],
    *,
    quantiles: Sequence[float] = QUANTILES,
) -> dict[str, float]:
    """How the weights of each strand are distributed over the rows that have it.

    Args:
        names: strands, in the order of the columns (`Fusion.names`).
        weights: `[n, M]` (`Fused.weights`).
        present: `[n]` bool by strand; a strand that is not in it is there in every row.
        quantiles: which to tell, between 0 and 1.
    Returns:
        `<strand>/present`, the share of rows that have it, and `<strand>/mean`, `/std` (of the population), `/q10`, …
        of its weight there. A strand that no row has gets the first alone; without any row there is nothing to tell.
    Raises:
        ValueError: another number of names than of columns.
    """
    if weights.ndim != 2 or weights.shape[1] != len(names):
        raise ValueError(f"weights of shape {tuple(weights.shape)}; wanted [n, {len(names)}] for strands {list(names)}")
    if not len(weights):
        return {}
    values = weights.detach().double().cpu().numpy()
    told: dict[str, float] = {}
    for column, name in enumerate(names):
        mine = values[:, column]
        if name in present:
            mine = mine[present[name].cpu().numpy()]
        told[f"{name}/present"] = len(mine) / len(values)
        if len(mine):
            told[f"{name}/mean"] = float(mine.mean())
            told[f"{name}/std"] = float(mine.std())
            for quantile, value in zip(quantiles, np.quantile(mine, quantiles), strict=True):
                told[f"{name}/q{100 * quantile:g}"] = float(value)
    return told
