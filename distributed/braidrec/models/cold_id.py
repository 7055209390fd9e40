"""At evaluation, what stands for the ID embedding of an item that training never showed."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

ColdID = Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]
"""`[n, d]` from all items' ID rows `[n, d]`, `[n]` bool which are cold (some, not all), and what the items' modalities
give: `[n, …]` each, zeros where an item has none."""

RIDGE = 0.01
"""λ as a share of the mean square of a column."""


def zero(ids: Tensor, cold: Tensor, content: Sequence[Tensor]) -> Tensor:
    """Zero."""
    return ids.masked_fill(cold.unsqueeze(-1), 0.0)


def mean_of_warm(ids: Tensor, cold: Tensor, content: Sequence[Tensor]) -> Tensor:
    """The mean of the items that training showed."""
    return torch.where(cold.unsqueeze(-1), ids[~cold].mean(0), ids)


def generated(ids: Tensor, cold: Tensor, content: Sequence[Tensor]) -> Tensor:
    """A linear function of the item's modalities, learnt from the items that training showed (Gantner et al., Learning
    attribute-to-feature mappings for cold-start recommendations, ICDM 2010), by ridge regression:

        W = argmin_W Σ_{i warm} ‖e_i − Wᵀ x_i‖² + λ ‖W‖²,    ê_i = Wᵀ x_i,    x_i = [1, h_i^1, h_i^2, …].
    """
    x = torch.cat([ids.new_ones(len(ids), 1), *content], dim=1).double()
    warm, wanted = x[~cold], ids[~cold].double()
    square = warm.T @ warm
    ridge = RIDGE * square.diagonal().mean() * torch.eye(len(square), dtype=square.dtype, device=square.device)
    weights = torch.linalg.solve(square + ridge, warm.T @ wanted)
    return torch.where(cold.unsqueeze(-1), (x @ weights).to(ids.dtype), ids)


COLD_IDS: Mapping[str, ColdID] = {"zero": zero, "mean": mean_of_warm, "generated": generated}
