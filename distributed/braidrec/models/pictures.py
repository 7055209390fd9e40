"""The pictures of items as a network sees them, mapped from a disk."""

from collections.abc import Sequence

import torch
from numpy import bool_, int32, uint8
from numpy.typing import NDArray
from torch import Tensor


class ItemPictures:
    """A square picture of every item that has one. Only those that are asked for are read.

    Args:
        pixels: `[n, S + margin, S + margin, 3]` RGB, on the disk or in memory.
        place: `[num_items]` which of them is the item's; −1: it has none.
        side: S, pixels of what is shown.
    Raises:
        ValueError: pictures that are smaller than what is to be shown.
    """

    def __init__(self, pixels: NDArray[uint8], place: NDArray[int32], *, side: int) -> None:
        if pixels.shape[1] < side or pixels.shape[1:] != (pixels.shape[1], pixels.shape[1], 3):
            raise ValueError(f"pixels: pictures of {pixels.shape[1:]}; wanted squares of at least {side} × {side} × 3")
        self.pixels, self.side = torch.from_numpy(pixels), side
        self.place = torch.from_numpy(place).long()

    @property
    def present(self) -> NDArray[bool_]:
        """`[num_items]` who has one."""
        found: NDArray[bool_] = (self.place >= 0).numpy()
        return found

    def has(self, items: Tensor) -> Tensor:
        """`[n]` bool for `[n]` items, on their device."""
        return self.place[items.cpu()].ge(0).to(items.device)

    def middle(self, items: Tensor) -> Tensor:
        """`[n, 3, S, S]` uint8: the middle of the pictures of items that have one, on the items' device."""
        stored = self._stored(items)
        start = (stored.shape[1] - self.side) // 2
        return stored[:, start : start + self.side, start : start + self.side].permute(0, 3, 1, 2)

    def drawn(self, items: Tensor, *, flip: bool) -> Tensor:
        """The same, a square at random of each, mirrored at random if `flip`; by torch's own random numbers."""
        stored = self._stored(items)
        count, device = len(stored), stored.device
        steps = torch.arange(self.side, device=device)
        corners = torch.randint(0, stored.shape[1] - self.side + 1, (2, count, 1), device=device)
        rows, columns = corners[0] + steps, corners[1] + steps
        if flip:
            mirrored = torch.rand(count, 1, device=device) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        which = torch.arange(count, device=device)[:, None, None]
        return stored[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def _stored(self, items: Tensor) -> Tensor:
        return self.pixels.index_select(0, self.place[items.cpu()]).to(items.device)


def scaled(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """`(x / 255 − mean) / std`, fp32, of `[n, 3, height, width]` uint8; the numbers are those of red, green, blue."""
    means, stds = (pixels.new_tensor(numbers, dtype=torch.float32).view(3, 1, 1) for numbers in (mean, std))
    return (pixels.float() / 255 - means) / stds
