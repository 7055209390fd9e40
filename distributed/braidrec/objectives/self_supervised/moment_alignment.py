"""Alignment of two views by their distribution."""

import torch
from torch import Tensor

from braidrec.objectives.gather import Gather, own_rows


class MomentAlignment:
    """`mean_f |μ_f − μ'_f| + |σ_f − σ'_f|`: means and standard deviations over the batch, of every dimension f.

    Node by node the views stay free: only their normal distributions are drawn together, as between the modalities
    in MENTOR (Xu et al., AAAI 2025), which has one mean and one deviation for all dimensions.

    Args:
        per_dimension: False: over all entries of the batch, as MENTOR.
        gather: adds the other ranks' rows to the moments.
    """

    def __init__(self, *, per_dimension: bool = True, gather: Gather = own_rows) -> None:
        self.per_dimension = per_dimension
        self.gather = gather

    def rows(self, first: Tensor, second: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        """`[n]`, the batch's one value in every row, so that its weighted mean is that value; see `ViewLoss`."""
        taking_part = (weight > 0).view(-1, 1, 1)
        count = self._total(taking_part.long()).clamp(min=1)
        views = torch.where(taking_part, torch.stack([first, second], dim=1), 0.0)
        mean = self._total(views) / count
        if not self.per_dimension:
            mean = mean.mean(-1, keepdim=True).expand_as(mean)
        # In two passes: the difference of large squares would lose the digits of a small deviation.
        centred = torch.where(taking_part, views - mean, 0.0)
        variance = self._total(centred.square()) / count
        if not self.per_dimension:
            variance = variance.mean(-1, keepdim=True)
        deviation = _root(variance)
        value = (mean[0] - mean[1]).abs().mean() + (deviation[0] - deviation[1]).abs().mean()
        return value.expand(len(first))

    def _total(self, rows: Tensor) -> Tensor:
        """Sum over the rows of all ranks; what travels is one row a rank."""
        return self.gather(rows.sum(0, keepdim=True)).sum(0)


def _root(values: Tensor) -> Tensor:
    """Square root with gradient 0 at 0, where a dimension is constant, in place of infinity."""
    above = values > 0
    return torch.where(above, torch.where(above, values, 1.0).sqrt(), 0.0)
