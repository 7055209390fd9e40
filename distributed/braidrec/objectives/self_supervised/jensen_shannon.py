"""The Jensen–Shannon bound of mutual information."""

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from braidrec.objectives.gather import Gather, own_rows
from braidrec.objectives.self_supervised.candidates import are_negatives, draw_negatives, gather_candidates


class JensenShannon(nn.Module):
    """`softplus(−D(z_i, z'_i)) + softplus(D(z_i, z'_j))`: binary cross-entropy of telling pairs from non-pairs.

    Negatives j are other nodes' rows of the second view (Hjelm et al., ICLR 2019): all of them, whose mean is taken,
    or one drawn at random, where Veličković et al. (ICLR 2019) shuffle the rows. A row without any has the first term
    alone.

    D is the inner product `⟨z, z'⟩`, or `⟨T(z), z'⟩`; with T = `nn.Linear(d, d, bias=False)` it is bilinear.

    Memory: `[n, N]` for N rows of all ranks with all negatives, `[n, d]` with one.

    Args:
        negatives: "all" other rows of the batch or "one" of them.
        transform: T, learnt with the loss.
        gather: brings the rows of all ranks, so that they are negatives as well.
    """

    def __init__(
        self,
        *,
        negatives: Literal["all", "one"] = "all",
        transform: nn.Module | None = None,
        gather: Gather = own_rows,
    ) -> None:
        super().__init__()
        self.negatives = negatives
        self.transform = transform
        self.gather = gather

    def rows(self, first: Tensor, second: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        """Loss of every row: `[n]`; see `ViewLoss`."""
        first = first if self.transform is None else self.transform(first)
        positive = F.softplus(-(first * second).sum(-1))
        others = self.gather(second)
        candidates = gather_candidates(weight, ids, self.gather)
        if self.negatives == "one":
            drawn, exists = draw_negatives(ids, *candidates)
            negative = F.softplus((first * others[drawn]).sum(-1))
            return positive + torch.where(exists, negative, 0.0)
        allowed = are_negatives(ids, *candidates)
        total = torch.where(allowed, F.softplus(first @ others.T), 0.0).sum(-1)
        return positive + total / allowed.sum(-1).clamp(min=1)
