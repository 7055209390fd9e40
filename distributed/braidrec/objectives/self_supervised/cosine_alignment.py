"""Alignment of two views by their angle."""

from torch import Tensor

from braidrec.objectives.cosine import cosine


class CosineAlignment:
    """`1 − cos(z_i, z'_i)`, half the squared distance of the unit vectors (Wang & Isola, ICML 2020).

    Both sides move. Nothing in it keeps different nodes apart: it needs a loss beside it that does.
    """

    def rows(self, first: Tensor, second: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        """Loss of every row: `[n]`, in [0, 2]; see `ViewLoss`."""
        return 1.0 - cosine(first, second)
