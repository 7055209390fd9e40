"""What the tests of sharded tables let the ranks do; imported by the spawned processes."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from step_cases import Case, make_step, train

from braidrec.data.delivery import Rows
from braidrec.data.storage import Location
from braidrec.models.contract import TableSpec
from braidrec.training.checkpoint import CheckpointStore, RunState
from braidrec.training.context import Collectives, WorkerContext
from braidrec.training.node_memory import memory_of_all_ranks
from braidrec.training.partition import RowPartition
from braidrec.training.saved_state import SavedState
from braidrec.training.sharded_table import ShardedTable
from braidrec.training.step import Position, TrainStep

ROWS, WIDTH = 50, 6
MACHINE = "braidrec.training.node_memory._machine"
SPEC = TableSpec(width=WIDTH, std=1.0)


def initial_rows(held: range | None = None) -> torch.Tensor:
    return SPEC.initialise(ROWS, torch.Generator().manual_seed(9), held)


def exchange(context: Collectives, rows: np.ndarray, sent: list[int]) -> tuple[np.ndarray, list[int]]:
    """Once told by the others how much comes, once knowing it."""
    arrived, counts = context.exchange_rows(torch.from_numpy(rows), sent)
    again, _ = context.exchange_rows(torch.from_numpy(rows), sent, counts)
    assert torch.equal(arrived, again)
    return arrived.numpy(), counts


def table_of(context: Collectives, *, sparse: bool = True, wire: torch.dtype | None = None) -> ShardedTable:
    partition = RowPartition.balanced(torch.arange(ROWS).flip(0), context.world_size)
    return ShardedTable(partition, context, initial=initial_rows, sparse=sparse, wire=wire)


def fetch_and_collect(
    context: Collectives,
    fetches: list[list[int] | None],
    sparse: bool,
    wire: torch.dtype | None,
    unused: bool,
    apart: bool = False,
) -> dict[str, Any]:
    """Fetch some rows, some of them without gradient, and return the gradients of a loss.

    Args:
        unused: the last fetch takes no part in the loss.
        apart: as if each rank were on a machine of its own.
    """
    with patch(MACHINE, lambda: (context.rank, 0)) if apart else nullcontext():
        table = table_of(context, sparse=sparse, wire=wire)
    assert table.shares_memory == (context.world_size > 1 and wire is None and not apart)
    with torch.no_grad():
        table.fetch(torch.tensor([0, ROWS - 1]))
    got = [table.fetch(None if nodes is None else torch.tensor(nodes, dtype=torch.int64)) for nodes in fetches]
    used = got[:-1] if unused else got
    loss = sum((number + 1) * ((rows**3).sum() + rows.prod(-1).sum()) for number, rows in enumerate(used))
    loss.backward()
    table.collect(context)
    gradient = table.weight.grad
    assert gradient.is_sparse == sparse
    table.weight.grad = None
    table.collect(context)
    assert table.weight.grad is None
    return {
        "fetched": [rows.detach().numpy() for rows in got],
        "gradient": gradient.to_dense().numpy(),
        "rows": gradient._indices()[0].tolist() if sparse else None,
        "held": (table.held.start, table.held.stop),
        "all": table.all_rows().numpy(),
    }


def train_steps(context: WorkerContext, case: Case, batches: list[Rows], apart: bool) -> dict[str, Any]:
    """As `step_cases.train`; `apart`: as if each rank were on a machine of its own."""
    with patch(MACHINE, lambda: (context.rank, 0)) if apart else nullcontext():
        return train(case, batches, context)


def shares_memory(context: Collectives, apart: bool) -> bool:
    """Whether ranks find each other's rows in memory; where they do, they see each other's changes."""
    with patch(MACHINE, lambda: (context.rank, 0)) if apart else nullcontext():
        table = table_of(context)
    with torch.no_grad():
        table.weight.fill_(context.rank)
    context.barrier()
    if table.shares_memory:
        owner = [rank for rank in range(context.world_size) for _ in table.partition.rows(rank)]
        assert table.all_rows()[:, 0].tolist() == owner
    return table.shares_memory


def memory_of_ranks(context: Collectives, refuses: int | None) -> list[int] | None:
    """What each rank wrote in its byte of the memory of all, as this one reads it; one rank may find no memory."""
    opened = patch("braidrec.training.node_memory._opened", lambda *_: None)
    with opened if context.rank == refuses else nullcontext():
        memory = memory_of_all_ranks(context, 5)
    if memory is None:
        return None
    assert memory.tolist() == [0] * 5
    context.barrier()
    memory[context.rank] = 7 + context.rank
    context.barrier()
    return memory.tolist()


def steps_and_save(context: WorkerContext, case: Case, batches: list[Rows], folder: Path) -> None:
    """Train some steps from the start and save where that leads."""
    step, saved, _ = _saving(context, case, folder)
    for number, rows in enumerate(batches):
        step.run(rows, Position(epoch=1, step=number, global_step=number))
    saved.save(state_of(1))


def load_and_go_on(context: WorkerContext, case: Case, batches: list[Rows], folder: Path) -> dict[str, Any]:
    """Restore, take some more steps, and say what came of it; a table in full."""
    step, saved, store = _saving(context, case, folder)
    assert store.newest_good() == 1
    tensors, state = store.load(1, saved.held)
    assert state == state_of(1)
    saved.put(tensors, optimizers=True)
    restored = step.tables["id"].all_rows().numpy().copy()
    losses = [
        step.run(rows, Position(epoch=2, step=number, global_step=number)).losses.numpy()
        for number, rows in enumerate(batches)
    ]
    return {
        "restored": restored,
        "losses": losses,
        "table": step.tables["id"].all_rows().numpy(),
        "own": [parameter.detach().numpy() for parameter in step.own_parameters],
        "held": len(step.tables["id"].held),
        "loaded": {name: len(tensor) for name, tensor in tensors.items() if tensor.dim()},
    }


def save_where_one_rank_cannot(context: WorkerContext, folder: Path) -> None:
    """Rank 1's disk is full while it writes its rows."""
    _, saved, store = _saving(context, Case(sharded=True), folder)
    saved.save(state_of(1))
    if context.rank == 1:

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        store.save_rows = full  # type: ignore[method-assign]
    saved.save(state_of(2))


def state_of(epoch: int) -> RunState:
    return RunState(
        epoch=epoch, global_step=epoch, best_epoch=1, best_value=None, stale_validations=0, config_hash="of the test"
    )  # fmt: skip


def _saving(context: WorkerContext, case: Case, folder: Path) -> tuple[TrainStep, SavedState, CheckpointStore]:
    step, table = make_step(case, context)
    store = CheckpointStore(Location.of(folder), warn=warn)
    return step, SavedState({"id": table}, step.model, step.optimizers, store, context), store


def warn(message: str) -> None:
    raise AssertionError(message)
