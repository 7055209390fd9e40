"""Where tables go, by what they and their optimizer need, figures by hand."""

import pytest

from braidrec.models.contract import TableSpec
from braidrec.training.table_factory import TablesChoice, choose_tables

MIB = 2**20
SPECS = {"id": TableSpec(width=64, std=0.1), "item": TableSpec(width=16, std=0.1, side="items")}
"""Of 12,288 users and 4,096 items: 16,384 × 64 + 4,096 × 16 cells of 4 bytes, 4.25 MiB."""


def choose(**options: object) -> TablesChoice:
    chosen = {
        "optimizer": "sgd", "sparse": True, "memory_bytes": 1 << 40, "world_size": 2, "wanted": "auto", **options
    }  # fmt: skip
    return choose_tables(SPECS, 12_288, 4_096, **chosen)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("optimizer", "sparse", "copies"),
    [("sgd", True, 1), ("row_adagrad", True, 1), ("adagrad", True, 2), ("adagrad", False, 3), ("sparse_adam", True, 3),
     ("adam", False, 4)],
)  # fmt: skip
def test_sharded_where_a_copy_takes_more_than_half_of_the_memory(optimizer: str, sparse: bool, copies: int) -> None:
    need = int(copies * 4.25 * MIB)
    fits = choose(optimizer=optimizer, sparse=sparse, memory_bytes=2 * need)
    too_large = choose(optimizer=optimizer, sparse=sparse, memory_bytes=2 * need - 2)
    assert (fits.placement, too_large.placement) == ("replicated", "sharded")
    assert f"would be {need / MIB:.1f} MiB with {optimizer}'s state" in too_large.reason
    assert ("and gradients" in too_large.reason) == (not sparse)


def test_one_worker_and_explicit_wishes() -> None:
    assert choose(memory_bytes=1, world_size=1).placement == "replicated"
    assert choose(memory_bytes=1, wanted="replicated").placement == "replicated"
    assert choose(wanted="sharded", world_size=1) == TablesChoice(
        "sharded", "as configured; a whole copy is 4.2 MiB with sgd's state, of 1024.0 GiB"
    )
