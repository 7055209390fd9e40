"""What stands for an item's modality where the item has none. (Filling vectors beforehand: `braidrec.features.impute`.)

presence → modality dropout (training) → projector → policy, one a modality → fusion
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn


class MissingPolicy(nn.Module):
    """Decides what the fusion sees of one modality: which rows are left as they are projected, what stands in the
    others, and which of them count."""

    @property
    def stand_in(self) -> Tensor | None:
        """`[d]` the learned vector that stands in rows that are not kept; None: zeros."""
        return None

    def keeps(self, present: Tensor) -> Tensor:
        """`[n]` bool: the rows that are left as they are projected."""
        return present

    def counts(self, present: Tensor) -> Tensor:
        """`[n]` bool: the rows that the fusion may use."""
        return torch.ones_like(present)

    def forward(self, h: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """Rows for the fusion, and which of them it may use.

        Args:
            h: `[n, d]` projected rows; what stands in an absent row is not looked at (but by `AsStored`).
            present: `[n]` bool.
        Returns:
            `[n, d]` and `[n]` bool.
        """
        kept = self.keeps(present).unsqueeze(-1)
        other = self.stand_in
        rows = h.masked_fill(~kept, 0.0) if other is None else torch.where(kept, h, other.to(h.dtype))
        return rows, self.counts(present)


class MissingToken(MissingPolicy):
    """An absent row is one learned vector of the modality, which then counts like any other.

    Args:
        dim: d.
        initial_std: it starts as N(0, std²).
    """

    def __init__(self, dim: int, *, initial_std: float = 0.1) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(dim) * initial_std)

    @property
    def stand_in(self) -> Tensor:
        return self.token


class MissingZeros(MissingPolicy):
    """An absent row is zero, and counts: a mean is taken over it, attention looks at it."""


class MissingMask(MissingPolicy):
    """An absent row is left out of the fusion: no share of a mean, no attention, nothing in a sum."""

    def counts(self, present: Tensor) -> Tensor:
        return present


class AsStored(MissingPolicy):
    """An absent row is what the table holds for it, projected: for tables that `features.impute` has filled."""

    def keeps(self, present: Tensor) -> Tensor:
        return torch.ones_like(present)

    def forward(self, h: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        return h, self.counts(present)


MISSING: dict[str, Callable[[int], MissingPolicy]] = {
    "token": MissingToken,
    "zeros": lambda dim: MissingZeros(),
    "mask": lambda dim: MissingMask(),
    "as_stored": lambda dim: AsStored(),
}
"""From d to a policy."""


class ModalityDropout(nn.Module):
    """While training, a row loses each modality that it has with probability `rate`, but never its last one.

    So a model learns to do without (Neverova et al., ModDrop, TPAMI 38(8), 2016). Where chance would take all that a
    row has, one of them, drawn uniformly, stays.

    Args:
        rate: in [0, 1).
    Raises:
        ValueError: `rate` is outside [0, 1).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"rate={rate} must be at least 0 and below 1")
        self.rate = rate

    def forward(self, present: Mapping[str, Tensor], luck: Tensor | None = None) -> dict[str, Tensor]:
        """Presence that is left, `[n]` bool for each modality, from presence; the order of the names does not matter.

        Args:
            luck: `[n, M]` uniform random numbers, columns in alphabetical order; None: drawn here, from torch's own
                seeded generator.
        """
        if not self.training or not self.rate or not present:
            return dict(present)
        names = sorted(present)
        had = torch.stack([present[name] for name in names], dim=-1)
        luck = torch.rand(had.shape, device=had.device) if luck is None else luck
        luckiest = torch.where(had, luck, -1.0).argmax(-1, keepdim=True)
        left = had & ((luck >= self.rate) | torch.zeros_like(had).scatter(-1, luckiest, True))
        return dict(zip(names, left.unbind(-1), strict=True))
