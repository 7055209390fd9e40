"""Interactions on their way to one rank: its shard, and the batches of an epoch made from it.

    shard (Ray Data split, or a slice) → kept or streamed → order of the epoch → equal, padded batches

Every rank gets the same number of batches of the same size an epoch, whatever its shard holds; the missing rows of the
last ones are padding with weight 0. What a batch holds is a function of (seed, epoch, rank) alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from braidrec.data.folder import DatasetFolder
from braidrec.data.randomness import generator_for
from braidrec.graph.relation import Relation

PADDING_USER = -1
"""A row with this user fills a shard up to the size of the others; it is taken out on arrival."""

CHUNK_ROWS = 1 << 18

Rows = Mapping[str, NDArray[Any]]
"""Columns of equal length: "user", "item" (int64 in batches), and "rating", "weight" (float32) where asked for."""


class Delivery(Protocol):
    """Hands out the batches of an epoch."""

    def batches(self, epoch: int, batch_rows: int, steps: int, first: int = 0) -> Iterator[Rows]:
        """`steps` batches of exactly `batch_rows` rows, with a column "real": 1, or 0 for padding.

        Args:
            first: so many of them are left out, without being made where that is possible.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ShardPlan:
    """How many rows each rank gets, known before any is read."""

    total_rows: int
    world_size: int

    @property
    def rows_per_rank(self) -> int:
        """Rows of the largest shard."""
        return -(-self.total_rows // self.world_size)

    @property
    def padding_rows(self) -> int:
        """Rows that make all shards equal."""
        return self.rows_per_rank * self.world_size - self.total_rows


class MemoryDelivery:
    """Keeps the shard and visits it in a new random order each epoch.

    Rows are first sorted by content, so that the order in which they arrived does not matter.

    Args:
        rows: ids of four bytes stay so in memory.
    """

    def __init__(self, rows: Rows, *, seed: int, rank: int) -> None:
        self._rows = _by_content(rows)
        self._seed, self._rank = seed, rank

    @property
    def num_rows(self) -> int:
        return len(self._rows["user"])

    def batches(self, epoch: int, batch_rows: int, steps: int, first: int = 0) -> Iterator[Rows]:
        order = np.arange(self.num_rows, dtype=np.int32 if self.num_rows < 2**31 else np.int64)
        generator_for(self._seed, "epoch order", epoch, self._rank).shuffle(order)
        for step in range(first, steps):
            chosen = order[step * batch_rows : (step + 1) * batch_rows]
            yield _padded({name: values[chosen] for name, values in self._rows.items()}, batch_rows)


class StreamDelivery:
    """Reads the shard anew each epoch and mixes `buffer_rows` rows at a time.

    The rows lie in a random order in the data set already, so a buffer mixes what a whole shuffle would have mixed
    before; what arrives is never held beyond the buffer.
    """

    def __init__(self, read: Callable[[], Iterable[Rows]], *, seed: int, rank: int, buffer_rows: int) -> None:
        self._read = read
        self._seed, self._rank = seed, rank
        self._buffer_rows = buffer_rows

    def batches(self, epoch: int, batch_rows: int, steps: int, first: int = 0) -> Iterator[Rows]:
        """Those that are left out are read all the same: each pass brings the same rows in the same order."""
        return islice(self._all(epoch, batch_rows, steps), first, None)

    def _all(self, epoch: int, batch_rows: int, steps: int) -> Iterator[Rows]:
        given = 0
        left: Rows | None = None
        for index, buffer in enumerate(self._buffers(max(self._buffer_rows, batch_rows))):
            order = generator_for(self._seed, "stream order", epoch, self._rank, index).permutation(len(buffer["user"]))
            mixed = {name: values[order] for name, values in buffer.items()}
            rows = mixed if left is None else _concatenate([left, mixed])
            whole = len(rows["user"]) // batch_rows
            for start in range(0, whole * batch_rows, batch_rows):
                yield _padded({name: values[start : start + batch_rows] for name, values in rows.items()}, batch_rows)
                given += 1
            left = {name: values[whole * batch_rows :] for name, values in rows.items()}
        while given < steps:
            assert left is not None, "an empty shard"
            yield _padded(left, batch_rows)
            left = {name: values[:0] for name, values in left.items()}
            given += 1

    def _buffers(self, rows: int) -> Iterator[Rows]:
        held: list[Rows] = []
        size = 0
        yielded = False
        for chunk in self._read():
            held.append(without_padding(chunk))
            size += len(held[-1]["user"])
            while size >= rows:
                joined = _concatenate(held)
                yield {name: values[:rows] for name, values in joined.items()}
                yielded = True
                held = [{name: values[rows:] for name, values in joined.items()}]
                size -= rows
        if size or not yielded:
            yield _concatenate(held)


class UniformUserDelivery:
    """LightGCN's official sampler (He et al., SIGIR 2020): a user uniformly with replacement, then one of its items.

    An epoch is as many draws as the train split has rows, shared evenly among the ranks. Users without train
    interactions are never drawn.
    """

    def __init__(self, interactions: Relation, num_users: int, plan: ShardPlan, *, seed: int, rank: int) -> None:
        self._relation, self._num_users, self._plan = interactions, num_users, plan
        self._degree = np.diff(interactions.indptr[: num_users + 1]).astype(np.int64)
        self._active = np.flatnonzero(self._degree)
        self._seed, self._rank = seed, rank

    def batches(self, epoch: int, batch_rows: int, steps: int, first: int = 0) -> Iterator[Rows]:
        remaining = self._plan.total_rows // self._plan.world_size
        remaining += self._rank < self._plan.total_rows % self._plan.world_size
        for step in range(first, steps):
            count = min(batch_rows, remaining - step * batch_rows)
            yield _padded(self._draw(max(count, 0), epoch, step), batch_rows)

    def _draw(self, count: int, epoch: int, step: int) -> Rows:
        rng = generator_for(self._seed, "uniform users", epoch, step, self._rank)
        users = self._active[rng.integers(0, len(self._active), count)]
        places = (rng.random(count) * self._degree[users]).astype(np.int64)
        items = self._relation.indices[self._relation.indptr[users] + places].astype(np.int64) - self._num_users
        return {"user": users, "item": items}


class UserDelivery:
    """Every user with train interactions once an epoch, in a new random order, beside one of his items drawn uniformly.

    For models whose batches are of users; any other model then sees as much of a user with few items as of one with
    many.
    """

    def __init__(self, interactions: Relation, num_users: int, plan: ShardPlan, *, seed: int, rank: int) -> None:
        self._relation, self._num_users = interactions, num_users
        self._degree = np.diff(interactions.indptr[: num_users + 1]).astype(np.int64)
        self._own = np.flatnonzero(self._degree)[rank :: plan.world_size]
        self._seed, self._rank = seed, rank

    def batches(self, epoch: int, batch_rows: int, steps: int, first: int = 0) -> Iterator[Rows]:
        rng = generator_for(self._seed, "user order", epoch, self._rank)
        users = self._own[rng.permutation(len(self._own))]
        places = (rng.random(len(users)) * self._degree[users]).astype(np.int64)
        items = self._relation.indices[self._relation.indptr[users] + places].astype(np.int64) - self._num_users
        for step in range(first, steps):
            chosen = slice(step * batch_rows, (step + 1) * batch_rows)
            yield _padded({"user": users[chosen], "item": items[chosen]}, batch_rows)


def local_rows(folder: DatasetFolder, columns: list[str], rank: int, world_size: int) -> Rows:
    """The shard of `rank` without Ray: every `world_size`-th row of the train split. No rank holds the others' rows."""
    own, first = list[Rows](), 0
    for chunk in folder.chunks("train", columns):
        own.append({name: values[(rank - first) % world_size :: world_size].copy() for name, values in chunk.items()})
        first += len(chunk["user"])
    return _concatenate(own)


def read_all(chunks: Iterable[Rows]) -> Rows:
    """The whole of a shard, padding taken out."""
    return _concatenate([without_padding(chunk) for chunk in chunks])


def without_padding(rows: Rows) -> Rows:
    """The rows that are interactions."""
    real = np.asarray(rows["user"]) != PADDING_USER
    return {name: np.asarray(values)[real] for name, values in rows.items()}


def _by_content(rows: Rows) -> Rows:
    """Sorted by the columns, the last of their names first."""
    if set(rows) == {"user", "item"} and all(values.dtype == np.int32 for values in rows.values()):
        # One number a row: sorted in place, with less memory and in a tenth of the time.
        pairs = rows["user"].astype(np.int64) << 32
        pairs |= rows["item"]
        pairs.sort()
        return {"user": (pairs >> 32).astype(np.int32), "item": (pairs & 0x7FFFFFFF).astype(np.int32)}
    order = np.lexsort([rows[name] for name in sorted(rows)])
    return {name: values[order] for name, values in rows.items()}


def with_wide_ids(rows: Rows) -> Rows:
    """Ids as int64, which is what torch indexes with."""
    return {
        name: values.astype(np.int64, copy=False) if name in ("user", "item") else values
        for name, values in rows.items()
    }


def _concatenate(parts: list[Rows]) -> Rows:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _padded(rows: Rows, size: int) -> Rows:
    """Ids as int64, filled up to `size` rows with copies of user 0 and item 0 that count nothing."""
    rows = with_wide_ids(rows)
    count = len(rows["user"])
    real = np.zeros(size, dtype=np.float32)
    real[:count] = 1.0
    if count == size:
        return {**rows, "real": real}
    filled = {name: np.concatenate([values, np.zeros(size - count, values.dtype)]) for name, values in rows.items()}
    return {**filled, "real": real}
