"""Batches of an epoch: every interaction once over all ranks, in equal numbers of equal batches."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chisquare
from tiny_folder import write_tiny

from braidrec.data.delivery import (
    PADDING_USER,
    Delivery,
    MemoryDelivery,
    Rows,
    ShardPlan,
    StreamDelivery,
    local_rows,
    read_all,
)
from braidrec.data.folder import DatasetFolder

BATCH_ROWS = 3
WORLDS = (1, 2, 3, 4)
SIZES = (4, 7, 12, 25)
ERROR_RATE = 1e-4


def interactions(count: int) -> dict[str, np.ndarray]:
    """Distinct rows, row 0 being that of user 0 and item 0, which padding looks like."""
    index = np.arange(count)
    return {
        "user": (index // 3).astype(np.int32),
        "item": (index % 3 + index // 5).astype(np.int32),
        "rating": index.astype(np.float32) + 1,
    }


def shard(rows: Rows, rank: int, world_size: int) -> Rows:
    return {name: values[rank::world_size] for name, values in rows.items()}


def padded_shard(rows: Rows, rank: int, world_size: int) -> Rows:
    """As Ray Data delivers it: consecutive rows, filled up with rows of user −1."""
    plan = ShardPlan(total_rows=len(rows["user"]), world_size=world_size)
    fill = {"user": PADDING_USER, "item": 0, "rating": 0}
    whole = {
        name: np.concatenate([values, np.full(plan.padding_rows, fill[name], values.dtype)])
        for name, values in rows.items()
    }
    start = rank * plan.rows_per_rank
    return {name: values[start : start + plan.rows_per_rank] for name, values in whole.items()}


def chunks(rows: Rows, size: int) -> Iterator[Rows]:
    for start in range(0, len(rows["user"]), size):
        yield {name: values[start : start + size] for name, values in rows.items()}


def in_memory(rows: Rows, *, rank: int = 0, seed: int = 1) -> Delivery:
    return MemoryDelivery(read_all([rows]), seed=seed, rank=rank)


def streamed(rows: Rows, *, rank: int = 0, seed: int = 1, chunk: int = 2, buffer: int = 5) -> Delivery:
    return StreamDelivery(lambda: chunks(rows, chunk), seed=seed, rank=rank, buffer_rows=buffer)


Make = Callable[..., Delivery]
DELIVERIES = pytest.mark.parametrize("make", [in_memory, streamed])


def triples(batch: Rows, *, real: bool = True) -> list[tuple[int, int, float]]:
    kept = batch["real"] == (1.0 if real else 0.0)
    return list(zip(*(batch[name][kept].tolist() for name in ("user", "item", "rating")), strict=True))


def epoch_of(delivery: Delivery, epoch: int, steps: int, rows: int = BATCH_ROWS) -> list[tuple[int, int, float]]:
    return [triple for batch in delivery.batches(epoch, rows, steps) for triple in triples(batch)]


@DELIVERIES
@pytest.mark.parametrize("split", [shard, padded_shard])
@pytest.mark.parametrize("world_size", WORLDS)
@pytest.mark.parametrize("count", SIZES)
def test_every_row_once_an_epoch(make: Make, split: Callable[..., Rows], world_size: int, count: int) -> None:
    rows = interactions(count)
    plan = ShardPlan(total_rows=count, world_size=world_size)
    steps = -(-plan.rows_per_rank // BATCH_ROWS)
    wanted = Counter(zip(*(rows[name].tolist() for name in ("user", "item", "rating")), strict=True))
    deliveries = [make(split(rows, rank, world_size), rank=rank) for rank in range(world_size)]
    for epoch in (1, 2):
        seen: Counter[tuple[int, int, float]] = Counter()
        for delivery in deliveries:
            batches = list(delivery.batches(epoch, BATCH_ROWS, steps))
            assert len(batches) == steps
            for batch in batches:
                assert {len(values) for values in batch.values()} == {BATCH_ROWS}
                assert batch["user"].dtype == batch["item"].dtype == np.int64
                assert set(batch["real"].tolist()) <= {0.0, 1.0}
                assert set(triples(batch, real=False)) <= {(0, 0, 0.0)}
                seen.update(triples(batch))
        assert seen == wanted


def test_shard_plan() -> None:
    plan = ShardPlan(total_rows=10, world_size=4)
    assert (plan.rows_per_rank, plan.padding_rows) == (3, 2)
    plan = ShardPlan(total_rows=12, world_size=4)
    assert (plan.rows_per_rank, plan.padding_rows) == (3, 0)


@DELIVERIES
def test_a_shard_of_nothing_but_padding(make: Make) -> None:
    """Four rows for three ranks: two each, so that the last rank has none."""
    rows = padded_shard(interactions(4), 2, 3)
    assert set(rows["user"].tolist()) == {PADDING_USER}
    batches = list(make(rows, rank=2).batches(1, BATCH_ROWS, 2))
    assert len(batches) == 2
    for batch in batches:
        assert batch["real"].tolist() == [0.0] * BATCH_ROWS
        assert batch["user"].tolist() == batch["item"].tolist() == [0] * BATCH_ROWS
        assert batch["user"].dtype == np.int64


@DELIVERIES
def test_order_is_a_function_of_seed_epoch_and_rank(make: Make) -> None:
    rows = interactions(60)
    orders = {
        (seed, epoch, rank): tuple(epoch_of(make(rows, seed=seed, rank=rank), epoch, 20))
        for seed in (1, 2)
        for epoch in (1, 2, 3)
        for rank in (0, 1)
    }
    assert len(set(orders.values())) == len(orders)
    for (seed, epoch, rank), order in orders.items():
        assert tuple(epoch_of(make(rows, seed=seed, rank=rank), epoch, 20)) == order


def test_epochs_in_any_order_are_the_same() -> None:
    """What a resumed run asks for first is what an uninterrupted one got at that epoch."""
    delivery = in_memory(interactions(30))
    third = epoch_of(delivery, 3, 10)
    for epoch in (1, 2):
        epoch_of(delivery, epoch, 10)
    assert epoch_of(delivery, 3, 10) == third


def test_arrival_does_not_matter_in_memory() -> None:
    rows = interactions(30)
    wanted = epoch_of(in_memory(rows), 1, 10)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(30)
        arrived = {name: values[order] for name, values in rows.items()}
        delivery = MemoryDelivery(read_all(chunks(arrived, 1 + seed)), seed=1, rank=0)
        assert epoch_of(delivery, 1, 10) == wanted


@pytest.mark.parametrize("buffer", [1, 3, 4, 10, 29, 30, 31, 1000])
def test_a_stream_does_not_depend_on_its_chunks(buffer: int) -> None:
    """Neither on whether the buffer is smaller than a batch, or larger than the data."""
    rows = interactions(30)
    orders = {tuple(epoch_of(streamed(rows, chunk=chunk, buffer=buffer), 1, 10)) for chunk in (1, 2, 7, 30)}
    assert len(orders) == 1
    assert Counter(orders.pop()) == Counter(epoch_of(in_memory(rows), 1, 10))


def test_a_stream_mixes_within_its_buffer_only() -> None:
    rows = interactions(40)
    order = [int(rating) - 1 for _, _, rating in epoch_of(streamed(rows, buffer=10), 1, 14)]
    for start in range(0, 40, 10):
        assert sorted(order[start : start + 10]) == list(range(start, start + 10))
        assert order[start : start + 10] != list(range(start, start + 10))


def test_a_stream_holds_no_more_than_its_buffer() -> None:
    taken: list[int] = []

    def read() -> Iterator[Rows]:
        for number, chunk in enumerate(chunks(interactions(1_000), 10)):
            taken.append(number)
            yield chunk

    delivery = StreamDelivery(read, seed=1, rank=0, buffer_rows=50)
    batches = delivery.batches(1, 10, 100)
    for step in range(100):
        next(batches)
        # Rows read, less those handed out already.
        assert len(taken) * 10 - step * 10 <= 50
    assert len(taken) == 100


def test_a_permutation_is_uniform() -> None:
    """The place of each of four rows over 2,400 epochs. Fails a correct shuffle with probability 1e-4."""
    delivery = in_memory(interactions(4))
    places = np.zeros((4, 4))
    for epoch in range(2_400):
        for place, (_, _, rating) in enumerate(epoch_of(delivery, epoch, 1, 4)):
            places[int(rating) - 1, place] += 1
    # Every row and column sums to 2,400: 9 free cells of 16.
    assert chisquare(places.reshape(-1), ddof=6).pvalue > ERROR_RATE


@pytest.mark.parametrize("extra", [(), ("rating",)])
def test_ids_are_four_bytes_in_memory_and_eight_in_batches(extra: tuple[str, ...]) -> None:
    """Two columns of ids are sorted as one number a row, in the order of all columns otherwise."""
    random = np.random.default_rng(2)
    users, items = random.integers(0, 2**31 - 1, (2, 300), dtype=np.int32)
    users[:100], items[50:150] = 2**31 - 2, 0
    rows = {"user": users, "item": items, **{name: random.random(300).astype(np.float32) for name in extra}}
    wide = {name: values.astype(np.int64) if name in ("user", "item") else values for name, values in rows.items()}
    kept, as_before = MemoryDelivery(rows, seed=3, rank=0), MemoryDelivery(wide, seed=3, rank=0)
    assert kept._rows["user"].dtype == kept._rows["item"].dtype == np.int32
    ordered = sorted(zip(users.tolist(), items.tolist(), strict=True))
    if not extra:
        assert list(zip(kept._rows["user"].tolist(), kept._rows["item"].tolist(), strict=True)) == ordered
    for one, other in zip(kept.batches(1, 64, 5), as_before.batches(1, 64, 5), strict=True):
        assert one["user"].dtype == one["item"].dtype == np.int64
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_local_shards_of_any_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every world_size-th row of the stored order, wherever a chunk ends."""
    train = [(user, item, 0.0) for user in range(6) for item in range(user + 1)]
    folder = write_tiny(tmp_path / "data", {"train": train}, num_users=6, num_items=6)
    users, items = folder.edges("train")
    whole = DatasetFolder.chunks
    for size in (1, 2, 5, 100):
        monkeypatch.setattr(DatasetFolder, "chunks", lambda self, split, names, n=size: whole(self, split, names, n))
        for world_size in WORLDS:
            for rank in range(world_size):
                rows = local_rows(folder, ["user", "item"], rank, world_size)
                assert rows["user"].tolist() == users[rank::world_size].tolist()
                assert rows["item"].tolist() == items[rank::world_size].tolist()


def test_local_shards_are_disjoint_and_complete(tmp_path: Path) -> None:
    train = [(user, item, user + item / 10) for user in range(5) for item in range(user + 1)]
    folder = write_tiny(tmp_path / "data", {"train": train}, num_users=5, num_items=5, columns=("rating", "weight"))
    for world_size in WORLDS:
        shards = [local_rows(folder, ["user", "item", "weight"], rank, world_size) for rank in range(world_size)]
        assert max(len(rows["user"]) for rows in shards) - min(len(rows["user"]) for rows in shards) <= 1
        seen = Counter(
            (user, item, round(weight - 100, 4))
            for rows in shards
            for user, item, weight in zip(*(rows[name].tolist() for name in ("user", "item", "weight")), strict=True)
        )
        assert seen == Counter((user, item, round(rating, 4)) for user, item, rating in train)
        assert set(shards[0]) == {"user", "item", "weight"}
