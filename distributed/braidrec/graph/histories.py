"""The train items of users: all of them, or of each user a few that cost no more than a cap."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braidrec.graph.relation import Relation


@dataclass(frozen=True, kw_only=True, eq=False)
class Ragged:
    """Rows of different lengths, one after the other.

    Attributes:
        columns: `[n]` int64.
        weights: `[n]` fp32.
        offsets: `[num_rows + 1]` int64: row r is what stands from `offsets[r]` to before `offsets[r + 1]`.
    """

    columns: Tensor
    weights: Tensor
    offsets: Tensor

    @property
    def num_rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def rows(self) -> Tensor:
        """`[n]` the row that each entry stands in."""
        counts = self.offsets.diff()
        return torch.repeat_interleave(torch.arange(self.num_rows, device=counts.device), counts)


@dataclass(frozen=True, kw_only=True, eq=False)
class SomeItems:
    """As many items for each user as the longest has.

    Attributes:
        items: `[n, c]` int64; 0 where there is none.
        real: `[n, c]` bool: where there is one.
    """

    items: Tensor
    real: Tensor


class Histories:
    """The items of every user in train.

    Args:
        interactions: the train graph.
        num_users: nodes below are users.
    """

    def __init__(self, interactions: Relation, num_users: int) -> None:
        self.interactions, self.num_users = interactions, num_users

    def whole(self, users: Tensor | None) -> Ragged:
        """All items of some users (None: of all in order), with weight 1."""
        device = torch.device("cpu") if users is None else users.device
        wanted = torch.arange(self.num_users) if users is None else users
        taken, _ = self.interactions.structure.rows(wanted)
        columns = taken.indices.long().to(device) - self.num_users
        return Ragged(
            columns=columns,
            weights=torch.ones(len(columns), device=device),
            offsets=taken.indptr.long().to(device),
        )

    def drawn(self, users: Tensor, cap: int, *, without: Tensor | None = None) -> SomeItems:
        """At most `cap` items of each of `[n]` users, drawn anew at each call by torch's generator of the CPU.

        Of a longer history every item is as likely as any other, and none comes twice: the history is cut into `cap`
        stretches whose lengths differ by one at most, turned by a random angle, and one item is drawn of each. That
        costs as much for a history of a hundred thousand items as for one of `cap`.

        Args:
            without: `[n]` an item for each user that is left out, where it is among his.
        """
        rows = users.cpu().numpy()
        skipped = None if without is None else self._places(rows, without.cpu().numpy())
        counts = self._counts(rows) - (0 if skipped is None else skipped >= 0)
        places, real = _few(counts, cap)
        longer = np.flatnonzero(counts > cap)
        if len(longer):
            count = counts[longer, None]
            edges = np.arange(cap + 1) * count // cap
            random = torch.rand(len(longer), cap + 1, dtype=torch.float64).numpy()
            inside = edges[:, :-1] + (random[:, :-1] * np.diff(edges, axis=1)).astype(np.int64)
            places[longer] = (inside + (random[:, -1:] * count).astype(np.int64)) % count
        if skipped is not None:
            places += (skipped[:, None] >= 0) & (places >= skipped[:, None])
        return self._items(rows, places, real, users.device)

    def spread(self, users: Tensor, cap: int) -> SomeItems:
        """At most `cap` items of each of `[n]` users, always the same: of a longer history in even steps."""
        rows = users.cpu().numpy()
        counts = self._counts(rows)
        places, real = _few(counts, cap)
        longer = np.flatnonzero(counts > cap)
        if len(longer):
            places[longer] = (2 * np.arange(cap) + 1) * counts[longer, None] // (2 * cap)
        return self._items(rows, places, real, users.device)

    def _counts(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        indptr = self.interactions.indptr
        counts: NDArray[np.int64] = indptr[users + 1].astype(np.int64) - indptr[users]
        return counts

    def _places(self, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in each user's history the item stands; −1: it is not there."""
        ids = self.interactions.edge_ids(items + self.num_users, users)
        return np.where(ids >= 0, ids - self.interactions.indptr[users], -1)

    def _items(
        self, users: NDArray[np.int64], places: NDArray[np.int64], real: NDArray[np.bool_], device: torch.device
    ) -> SomeItems:
        indptr, indices = self.interactions.indptr, self.interactions.indices
        positions = np.where(real, indptr[users].astype(np.int64)[:, None] + places, 0)
        nodes = indices[positions] if len(indices) else positions
        items = np.where(real, nodes.astype(np.int64) - self.num_users, 0)
        return SomeItems(items=torch.from_numpy(items).to(device), real=torch.from_numpy(real).to(device))


def _few(counts: NDArray[np.int64], cap: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places 0, 1, … and whether they are within a row's count, `[n, min(cap, largest count)]`."""
    width = int(min(cap, counts.max(initial=0)))
    places = np.tile(np.arange(width, dtype=np.int64), (len(counts), 1))
    return places, places < counts[:, None]
