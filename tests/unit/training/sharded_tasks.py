"""What the tests of sharded tables let the ranks do; imported by the spawned processes."""

from typing import Any

import numpy as np
import torch
from two_process_tasks import train_whole

from braidrec.models.contract import TableSpec
from braidrec.training.context import Collectives
from braidrec.training.partition import RowPartition
from braidrec.training.sharded_table import ShardedTable

__all__ = ["exchange", "fetch_and_collect", "train_whole"]
ROWS, WIDTH = 50, 6
SPEC = TableSpec(width=WIDTH, std=1.0)


def initial_rows(held: range | None = None) -> torch.Tensor:
    return SPEC.initialise(ROWS, torch.Generator().manual_seed(9), held)


def exchange(context: Collectives, rows: np.ndarray, sent: list[int]) -> tuple[np.ndarray, list[int]]:
    """Once told by the others how much comes, once knowing it."""
    arrived, counts = context.exchange_rows(torch.from_numpy(rows), sent)
    again, _ = context.exchange_rows(torch.from_numpy(rows), sent, counts)
    assert torch.equal(arrived, again)
    return arrived.numpy(), counts


def fetch_and_collect(
    context: Collectives, fetches: list[list[int] | None], sparse: bool, wire: torch.dtype | None, unused: bool
) -> dict[str, Any]:
    """Fetch some rows, some of them without gradient, and return the gradients of a loss.

    Args:
        unused: the last fetch takes no part in the loss.
    """
    partition = RowPartition.balanced(torch.arange(ROWS).flip(0), context.world_size)
    table = ShardedTable(partition, context, initial=initial_rows, sparse=sparse, wire=wire)
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
