"""Where tables go, by what they and their optimizer need, figures by hand."""

import pytest
import torch

from braidrec.models.contract import TableSpec
from braidrec.training.context import SingleProcess
from braidrec.training.partition import RowPartition
from braidrec.training.sharded_table import ShardedTable
from braidrec.training.table_factory import TablesChoice, choose_tables, tables_fact

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


def test_what_is_said_at_the_start() -> None:
    table = ShardedTable(
        RowPartition(starts=(0, 300), num_rows=1024), SingleProcess(), sparse=True,
        initial=lambda held: torch.zeros(len(held), 256),
    )  # fmt: skip
    said = tables_fact(TablesChoice("sharded", "as configured"), {"id": table}, "bf16")
    assert said == (
        "sharded (as configured); 300 to 724 rows a worker, bf16 between workers; evaluation gathers 1.0 MiB on each"
    )
    assert tables_fact(TablesChoice("replicated", "one worker"), {}, "fp32") == "replicated (one worker)"
