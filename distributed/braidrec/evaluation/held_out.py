"""Which items belong to which user: the candidates that are masked, and those that were held out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from braidrec.distinct import distinct

Ints = NDArray[np.integer]


@dataclass(frozen=True, kw_only=True, eq=False)
class UserItems:
    """A set of items per user, stored as CSR: the items of user u are `items[indptr[u]:indptr[u + 1]]`, ascending.

    Build it with `from_edges`. `values` (such as ratings) are aligned with `items`.
    """

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]
    num_items: int
    values: NDArray[np.float32] | None = None

    @classmethod
    def from_edges(
        cls, users: Ints, items: Ints, *, num_users: int, num_items: int, values: NDArray[np.floating] | None = None
    ) -> "UserItems":
        """From pairs in any order. A repeated pair counts once; its value is the one given last.

        Raises:
            ValueError: columns of different lengths, or an id outside 0 … num − 1.
        """
        lengths = {len(users), len(items), len(users) if values is None else len(values)}
        if len(lengths) > 1:
            raise ValueError(f"users, items and values must be equally long, got lengths {sorted(lengths)}")
        _check_range("user", users, num_users)
        _check_range("item", items, num_items)
        keys = users.astype(np.int64) * num_items + items
        if values is None:
            kept, kept_values = _sorted_unique(keys), None
        else:
            order = np.argsort(keys, kind="stable")
            last = np.ones(len(order), dtype=bool)
            np.not_equal(keys[order[:-1]], keys[order[1:]], out=last[:-1])
            kept = keys[order[last]]
            kept_values = np.asarray(values, dtype=np.float32)[order[last]]
        return cls._from_keys(kept, num_users=num_users, num_items=num_items, values=kept_values)

    @classmethod
    def empty(cls, *, num_users: int, num_items: int) -> "UserItems":
        """No item for anyone."""
        nothing = np.empty(0, dtype=np.int64)
        return cls._from_keys(nothing, num_users=num_users, num_items=num_items, values=None)

    @classmethod
    def _from_keys(
        cls, keys: NDArray[np.int64], *, num_users: int, num_items: int, values: NDArray[np.float32] | None
    ) -> "UserItems":
        owner, items = np.divmod(keys, max(num_items, 1))
        indptr = np.zeros(num_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(owner, minlength=num_users), out=indptr[1:])
        return cls(indptr=indptr, items=items.astype(np.int32), num_items=num_items, values=values)

    @property
    def num_users(self) -> int:
        return len(self.indptr) - 1

    @property
    def counts(self) -> NDArray[np.int64]:
        """Items per user, [num_users]."""
        return np.diff(self.indptr)

    @property
    def users(self) -> NDArray[np.int64]:
        """The users who have at least one item, ascending."""
        return np.flatnonzero(self.counts)

    def rows(self, users: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(row_index, items): all items of these users, flattened; row_index points into `users`. Sorted by both."""
        row_index, positions = self._positions(users)
        return row_index, self.items[positions].astype(np.int64)

    def row_values(self, users: Ints) -> NDArray[np.float32]:
        """The values that go with `rows(users)`."""
        assert self.values is not None, "built without values"
        return self.values[self._positions(users)[1]]

    def contains(self, users: Ints, items: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether items[r, j] belongs to users[r]; [len(users), width] → same shape. A negative item never does."""
        row_index, owned = self.rows(users)
        if not len(owned):
            return np.zeros(items.shape, dtype=bool)
        keys = row_index * self.num_items + owned
        wanted = np.arange(len(users), dtype=np.int64)[:, None] * self.num_items + items
        return _is_member(wanted, keys) & (items >= 0)

    def without(self, other: "UserItems") -> "UserItems":
        """These pairs less the pairs of `other`."""
        keys = self._keys()
        kept = ~_is_member(keys, other._keys())
        values = None if self.values is None else self.values[kept]
        return self._from_keys(keys[kept], num_users=self.num_users, num_items=self.num_items, values=values)

    def _keys(self) -> NDArray[np.int64]:
        owner = np.repeat(np.arange(self.num_users, dtype=np.int64), self.counts)
        return owner * self.num_items + self.items

    def _positions(self, users: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        starts = self.indptr[users]
        lengths = self.indptr[np.asarray(users) + 1] - starts
        row_index = np.repeat(np.arange(len(users), dtype=np.int64), lengths)
        ends = np.cumsum(lengths)
        return row_index, np.arange(len(row_index)) + (starts - ends + lengths)[row_index]


def _sorted_unique(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    # Dataset folders are usually written in this order already, and a check costs far less than a sort.
    return keys if bool(np.all(keys[1:] > keys[:-1])) else distinct(keys)


def _is_member(wanted: NDArray[np.int64], sorted_keys: NDArray[np.int64]) -> NDArray[np.bool_]:
    if not len(sorted_keys):
        return np.zeros(wanted.shape, dtype=bool)
    position = np.searchsorted(sorted_keys, wanted)
    np.minimum(position, len(sorted_keys) - 1, out=position)
    member: NDArray[np.bool_] = sorted_keys[position] == wanted
    return member


def _check_range(column: str, ids: Ints, count: int) -> None:
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= count):
        row = int(np.flatnonzero((ids < 0) | (ids >= count))[0])
        raise ValueError(f"{column} id {ids[row]} in row {row} is outside 0 … {count - 1}")
