"""What the tests let both ranks do; imported by the spawned processes."""

from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from braidrec.config.run import RunConfig
from braidrec.data.delivery import Rows
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.models.contract import TableSpec
from braidrec.training.build import build_parts
from braidrec.training.context import Collectives, WorkerContext
from braidrec.training.loop import Loop
from braidrec.training.tables import ReplicatedTable
from braidrec.training.validation import SplitEvaluation, make_ranker

TABLE_ROWS, TABLE_WIDTH = 40, 5


def add_up(context: Collectives, values: list[float]) -> list[float]:
    return context.all_reduce(torch.tensor(values, dtype=torch.float64)).tolist()


def gather(context: Collectives, rows: np.ndarray) -> np.ndarray:
    return context.all_gather_rows(torch.from_numpy(rows)).numpy()


def collect_gradient(context: Collectives, nodes: list[int], sparse: bool) -> tuple[np.ndarray, list[bool]]:
    """The gradient after a step on some rows, and what was decided about moving rows."""
    table = ReplicatedTable(TableSpec(width=TABLE_WIDTH, std=1.0), TABLE_ROWS, seed=3, sparse=sparse).double()
    decide, decisions = table._rows_are_cheaper, []

    def spy(num_rows: int, among: Collectives) -> bool:
        decisions.append(decide(num_rows, among))
        return decisions[-1]

    table._rows_are_cheaper = spy
    rows = table.fetch(torch.tensor(nodes, dtype=torch.int64))
    ((rows**3).sum() + rows.prod(-1).sum()).backward()
    table.collect(context)
    return table.weight.grad.to_dense().numpy(), decisions


def evaluate(context: WorkerContext, config: RunConfig, data: str, split: str) -> dict[str, Any]:
    """Metrics, slices and the rank's own users, with the parameters that the seed gives."""
    folder = DatasetFolder.open(data)
    parts = build_parts(config, folder, context)
    evaluation = SplitEvaluation(
        folder,
        parts.interactions,
        config.evaluation,
        split,
        mask="train",
        rating=parts.objective.needs_rating,
        detail=True,
    )
    done = evaluation.run(make_ranker(parts), context, lambda done, total: None)
    return {"metrics": dict(done.metrics), "slices": done.result.slices, "users": done.own_users.to_pylist()}


def train_whole(context: WorkerContext, config: RunConfig, data: str, run_folder: Path) -> dict[str, Any]:
    """A whole run; the result and the tables at its end."""
    parts = build_parts(config, DatasetFolder.open(data), context)
    result = Loop(config, parts, context, Location.of(run_folder)).run()
    return {
        "metrics": result.metrics,
        "best_epoch": result.best_epoch,
        "example": result.example_items,
        "tables": {name: table.all_rows().numpy() for name, table in parts.tables.items()},
    }


def choose_mode(context: WorkerContext, config: RunConfig, data: str, available_bytes: int) -> str:
    """How this rank propagates when it finds that much free memory."""
    with mock.patch("psutil.virtual_memory", return_value=mock.Mock(available=available_bytes)):
        return build_parts(config, DatasetFolder.open(data), context).choice.mode


def train_steps(context: WorkerContext, case: Any, batches: list[Rows]) -> Any:
    from step_cases import train

    return train(case, batches, context)
