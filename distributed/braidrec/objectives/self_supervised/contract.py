"""What a loss on two views is to the training loop."""

from typing import Protocol

from torch import Tensor


class ViewLoss(Protocol):
    """A loss on two views of the same nodes: perturbed representations, or two modalities (alignment)."""

    def rows(self, first: Tensor, second: Tensor, weight: Tensor, ids: Tensor) -> Tensor:
        """Loss of every row.

        Args:
            first, second: `[n, d]` the two views.
            weight: `[n]`, 0 for rows that take no part: padding, a missing modality. They are no other row's negative
                and no part of any statistic; their own value is finite and for the caller to leave out.
            ids: `[n]` int64 nodes. Rows of the same node are never each other's negatives.
        Returns:
            `[n]`.
        """
        ...
