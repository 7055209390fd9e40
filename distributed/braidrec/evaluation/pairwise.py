"""Exact AUC of each user from whole rows of scores, without ever forming the pairs."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class PairWins:
    """Counts, for the users of one tile, how often a held-out item beats a negative one, over several item tiles.

    AUC_u = (1 / (P·N)) Σ_p (#negatives scored below p + ½ #negatives scored equal to p), over the user's P held-out
    items p and N negatives: the candidates that are neither masked nor held out. It is the Mann–Whitney statistic
    (Hanley and McNeil, Radiology 1982), per user as in Rendle et al., "BPR", UAI 2009.

    Args:
        row_index: [pairs] row of each held-out pair, ascending.
        scores: float32 [pairs] their scores.
        num_rows: users in the tile.
    """

    def __init__(self, row_index: NDArray[np.int64], scores: Tensor, num_rows: int) -> None:
        self._positives = np.bincount(row_index, minlength=num_rows)
        starts = np.cumsum(self._positives) - self._positives
        place = np.arange(len(row_index)) - starts[row_index]
        width = int(self._positives.max(initial=0))
        device = scores.device
        where = torch.from_numpy(row_index).to(device), torch.from_numpy(place).to(device)
        self._scores = torch.zeros(num_rows, width, dtype=torch.float32, device=device)
        self._scores[where] = scores
        self._real = torch.zeros(num_rows, width, dtype=torch.bool, device=device)
        self._real[where] = True
        self._doubled_wins = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self._negatives = np.zeros(num_rows, dtype=np.int64)

    def add(self, tile: Tensor, num_excluded: NDArray[np.int64]) -> None:
        """Takes the negatives of an item tile into account.

        Args:
            tile: [rows, columns]; masked and held-out entries are −inf. **Its rows are sorted in place.**
            num_excluded: [rows] how many entries were made −inf.
        """
        _sort_rows(tile)
        excluded = torch.from_numpy(num_excluded).to(tile.device)[:, None]
        below = torch.searchsorted(tile, self._scores)
        not_above = torch.searchsorted(tile, self._scores, right=True)
        # The excluded entries stand first. A held-out item that is itself scored −inf has none of them below it.
        wins = (below - excluded).clamp_(min=0) + (not_above - excluded)
        self._doubled_wins += torch.where(self._real, wins, 0).sum(dim=1)
        self._negatives += tile.shape[1] - num_excluded

    def auc(self) -> NDArray[np.float64]:
        """[rows]; NaN for a user without negatives or without held-out items."""
        pairs = (self._positives * self._negatives).astype(np.float64)
        wins = self._doubled_wins.cpu().numpy() / 2.0
        shares: NDArray[np.float64] = np.divide(wins, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        return shares


def _sort_rows(tile: Tensor) -> None:
    if tile.device.type != "cpu":
        tile.copy_(tile.sort(dim=1).values)
        return
    # NumPy's vectorised sort is an order of magnitude faster than torch's on a CPU, and releases the GIL.
    parts = np.array_split(tile.numpy(), torch.get_num_threads())
    with ThreadPoolExecutor(len(parts)) as pool:
        list(pool.map(lambda part: part.sort(axis=1), parts))
