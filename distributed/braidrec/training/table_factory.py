"""The tables that a model wants, on every rank as a whole or dealt out over the ranks, by what memory there is."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from braidrec.config.run import TrainingConfig
from braidrec.data.randomness import seed_for
from braidrec.models.contract import TableSpec
from braidrec.training.context import Collectives
from braidrec.training.partition import RowPartition
from braidrec.training.sharded_table import ShardedTable
from braidrec.training.tables import ReplicatedTable
from braidrec.training.world import World

STATES = {"adam": 2, "sparse_adam": 2, "adagrad": 1, "row_adagrad": 0, "sgd": 0}
"""Tensors of the table's own size that an optimizer keeps."""
LARGEST_SHARE = 0.5
"""Of the memory that a worker may use: what copies of all tables may take. The graph, batches and evaluation follow."""
WIRES: dict[str, torch.dtype | None] = {"fp32": None, "bf16": torch.bfloat16}

TrainedTable = ReplicatedTable | ShardedTable


@dataclass(frozen=True)
class TablesChoice:
    """How tables are placed, and why."""

    placement: str
    reason: str


def choose_tables(
    specs: Mapping[str, TableSpec],
    num_users: int,
    num_items: int,
    *,
    optimizer: str,
    sparse: bool,
    memory_bytes: int,
    world_size: int,
    wanted: str,
) -> TablesChoice:
    """Where the rows should live.

    Args:
        optimizer: its kind, for the state that it keeps.
        sparse: gradients have rows, and are not as large as the table.
        memory_bytes: what a worker may use.
        wanted: "replicated", "sharded" or "auto": sharded where several workers have no room for a copy each.
    """
    cells = sum(spec.num_rows(num_users, num_items) * spec.width for spec in specs.values())
    need = 4 * cells * (1 + STATES[optimizer] + (0 if sparse else 1))
    what = f"{_size(need)} with {optimizer}'s state{'' if sparse else ' and gradients'}, of {_size(memory_bytes)}"
    if wanted != "auto":
        return TablesChoice(wanted, f"as configured; a whole copy is {what}")
    if world_size == 1:
        return TablesChoice("replicated", "one worker holds all rows anyway")
    if need > LARGEST_SHARE * memory_bytes:
        return TablesChoice("sharded", f"a copy on each worker would be {what} that it may use")
    return TablesChoice("replicated", f"a copy on each worker is {what} that it may use")


def build_tables(
    specs: Mapping[str, TableSpec],
    world: World,
    context: Collectives,
    *,
    config: TrainingConfig,
    seed: int,
    sparse: bool,
    placement: str,
) -> dict[str, TrainedTable]:
    """The tables with their initial rows, which are the same wherever they live."""
    made: dict[str, TrainedTable] = {}
    for name, spec in specs.items():
        num_rows, table_seed = spec.num_rows(world.num_users, world.folder.num_items), seed_for(seed, f"table {name}")
        if placement == "sharded":
            made[name] = ShardedTable(
                RowPartition.balanced(_degrees(spec, world), context.world_size),
                context,
                initial=_InitialRows(spec, num_rows, table_seed, world),
                sparse=sparse,
                wire=WIRES[config.wire],
            ).to(context.device)
        else:
            start = None if spec.starts_as is None else world.features.fetch(spec.starts_as, None)[0]
            made[name] = ReplicatedTable(spec, num_rows, seed=table_seed, sparse=sparse, start=start).to(context.device)
    return made


def tables_fact(choice: TablesChoice, tables: Mapping[str, TrainedTable], wire: str) -> str:
    """One line for the log."""
    shards = [table for table in tables.values() if isinstance(table, ShardedTable)]
    if not shards:
        return f"{choice.placement} ({choice.reason})"
    partition = max((table.partition for table in shards), key=lambda partition: partition.num_rows)
    sizes = [len(partition.rows(rank)) for rank in range(len(partition.starts))]
    held = f"{min(sizes):,} to {max(sizes):,}" if min(sizes) < max(sizes) else f"{sizes[0]:,}"
    whole = _size(sum(4 * table.num_rows * table.weight.shape[1] for table in shards))
    told = f"{choice.placement} ({choice.reason}); {held} rows a worker"
    if all(table.shares_memory for table in shards):
        return f"{told}, all of them in memory that the workers share ({whole}), so that nothing is sent"
    return f"{told}, {wire} between workers; evaluation gathers {whole} on each"


class _InitialRows:
    """Values of the rows that a rank holds, as the whole table would begin."""

    def __init__(self, spec: TableSpec, num_rows: int, seed: int, world: World) -> None:
        self._spec, self._num_rows, self._seed, self._world = spec, num_rows, seed, world

    def __call__(self, held: range) -> Tensor:
        if self._spec.starts_as is not None:
            rows = torch.arange(held.start, held.stop, device=self._world.cold.device)
            return self._world.features.fetch(self._spec.starts_as, rows)[0].clone()
        return self._spec.initialise(self._num_rows, torch.Generator().manual_seed(self._seed), held)


def _degrees(spec: TableSpec, world: World) -> Tensor:
    """Train interactions of the nodes that the table has rows for."""
    of_nodes = world.interactions.in_degree
    parts = {"nodes": of_nodes, "users": of_nodes[: world.num_users], "items": of_nodes[world.num_users :]}
    return parts[spec.side]


def _size(num_bytes: float) -> str:
    for unit, of in (("GiB", 2**30), ("MiB", 2**20)):
        if num_bytes >= of:
            return f"{num_bytes / of:.1f} {unit}"
    return f"{num_bytes / 2**10:.1f} KiB"
