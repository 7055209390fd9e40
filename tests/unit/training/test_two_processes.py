"""Distributed equals single: two gloo processes with the halves of a batch compute what one does with the whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from process_pair import Pair, both
from step_cases import STEPS, Case, halves, some_rows, train
from training_runs import planted_folder, run_config
from two_process_tasks import (
    TABLE_ROWS,
    add_up,
    choose_mode,
    collect_gradient,
    evaluate,
    gather,
    train_steps,
    train_whole,
)

from braidrec.errors import DivergedError
from braidrec.training.context import SingleProcess
from braidrec.training.local_worker import LocalWorker

pytestmark = pytest.mark.slow

OPTIMIZERS = {"mf": "sparse_adam", "mf with biases": "adagrad", "lightgcn, full": "adam", "lightgcn, sampled": "adam"}
CASES = {
    **STEPS,
    **{f"{name}, {kind}": replace(STEPS[name], optimizer=kind) for name, kind in OPTIMIZERS.items()},
    "lightgcn, sampled, sparse adam": replace(STEPS["lightgcn, sampled"], optimizer="sparse_adam"),
    "lightgcn, sampled, targets excluded": replace(STEPS["lightgcn, sampled"], exclude_targets=True),
    "own parameter": Case(model="mf_scaled", optimizer="adam"),
    "clipped": Case(gradient_clip=0.01),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_folder(tmp_path_factory.mktemp("planted") / "data")


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_steps(pair: Pair, case: Case) -> None:
    """Three steps: uneven weights, padding on one rank, all of a rank's rows padding."""
    batches = [some_rows(0), some_rows(1, real=4, padding=4), some_rows(2, real=8, padding=0)]
    whole = train(case, batches)
    split = [halves(rows) for rows in batches]
    ranks = pair.run(train_steps, both(case), ([half[0] for half in split], [half[1] for half in split]))
    assert split[1][1]["real"].sum() == 0
    for name in whole:
        for step, wanted in enumerate(whole[name]):
            # Adam divides by the root of a gradient's square: where that is rounding noise, so is its update.
            loose = case.optimizer in ("adam", "sparse_adam") and name != "losses"
            np.testing.assert_allclose(ranks[0][name][step], wanted, rtol=1e-6 if loose else 1e-9, atol=1e-9)
            np.testing.assert_array_equal(ranks[0][name][step], ranks[1][name][step])


def test_a_nan_on_one_rank_stops_both(pair: Pair) -> None:
    rows = some_rows(0)
    poisoned = {**rows, "rating": np.where(np.arange(10) == 6, np.nan, rows["rating"]).astype(np.float32)}
    batches = [halves(rows), halves(poisoned)]
    case = STEPS["mf with biases on ratings"]
    first, second = pair.run(train_steps, both(case), tuple([half[rank] for half in batches] for rank in range(2)))
    assert isinstance(first, DivergedError) and isinstance(second, DivergedError)
    assert str(first) == str(second)
    assert str(first).startswith("epoch 1, step 1: loss=nan before the update")


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    ("nodes", "rows_are_cheaper"),
    [
        (([3, 9], [9, 30, 1]), True),
        ((list(range(TABLE_ROWS)), list(range(5, TABLE_ROWS))), False),
        ((list(range(TABLE_ROWS)), []), True),
        (([], [0, 0, 7]), True),
        (([], []), True),
    ],
    ids=["few rows", "most rows", "all and none", "repeated", "none"],
)
def test_gradients_add_up_by_rows_or_densely(
    pair: Pair, nodes: tuple[list[int], list[int]], rows_are_cheaper: bool, sparse: bool
) -> None:
    alone = [collect_gradient(SingleProcess(), part, sparse)[0] for part in nodes]
    results = pair.run(collect_gradient, nodes, both(sparse))
    for gradient, decisions in results:
        np.testing.assert_allclose(gradient, alone[0] + alone[1], rtol=1e-12, atol=1e-15)
        assert decisions == ([] if sparse else [rows_are_cheaper])


def test_collectives(pair: Pair) -> None:
    assert pair.run(add_up, ([1.0, -2.0], [0.5, 4.0])) == [[1.5, 2.0]] * 2
    long, short = np.arange(12.0).reshape(6, 2), np.full((1, 2), 7.0)
    nothing = short[:0]
    for rows in ((long, short), (nothing, long), (nothing, nothing)):
        for gathered in pair.run(gather, rows):
            np.testing.assert_array_equal(gathered, np.concatenate(rows))


def test_ranks_with_different_memory_propagate_alike(pair: Pair, data: Path, tmp_path: Path) -> None:
    """Otherwise one would wait for rows and the other for a whole gradient, for ever."""
    config = run_config(data, tmp_path)
    assert pair.run(choose_mode, both(config), both(str(data)), (1 << 10, 1 << 40)) == ["sampled", "sampled"]
    assert pair.run(choose_mode, both(config), both(str(data)), (1 << 40, 1 << 10)) == ["full", "full"]


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("loss", ["bpr", "rating_mse"])
def test_evaluation_agrees_to_the_last_bit(pair: Pair, data: Path, tmp_path: Path, split: str, loss: str) -> None:
    config = run_config(
        data, tmp_path, f"objective.loss.kind={loss}", "evaluation.auc=true", "evaluation.at=[1, 5, 20]"
    )
    worker = LocalWorker(torch.device("cpu"), lambda event: None)
    single = evaluate(worker, config, str(data), split)
    first, second = pair.run(evaluate, both(config), both(str(data)), both(split))
    assert first["metrics"] == second["metrics"] == single["metrics"]
    assert first["slices"] == second["slices"] == single["slices"]
    assert len(first["users"]) > 10 and len(second["users"]) > 10
    assert sorted(first["users"] + second["users"], key=lambda row: row["user"]) == single["users"]


def test_a_whole_run(pair: Pair, data: Path, tmp_path: Path) -> None:
    """Both ranks end alike; what they left is read back, evaluated and continued by one process."""
    config = run_config(data, tmp_path, "training.epochs=3", "training.propagation.mode=sampled")
    run_folder = tmp_path / "runs" / "pair"
    first, second = pair.run(train_whole, both(config), both(str(data)), both(run_folder))
    for name in ("metrics", "best_epoch"):
        assert first[name] == second[name]
    assert len(first["example"]) == 5  # which rank 0 makes alone
    assert second["example"] == []
    np.testing.assert_array_equal(first["tables"]["id"], second["tables"]["id"])
    parts = sorted((run_folder / "per_user" / "test").iterdir())
    assert [part.name for part in parts] == ["part-00000.parquet", "part-00001.parquet"]
    users = sorted(user for part in parts for user in pq.read_table(part)["user"].to_pylist())
    longer = run_config(data, tmp_path, "training.epochs=4", "training.propagation.mode=sampled")
    worker = LocalWorker(torch.device("cpu"), lambda event: None)
    train_whole(worker, longer, str(data), run_folder)
    (part,) = (run_folder / "per_user" / "test").iterdir()
    assert pq.read_table(part)["user"].to_pylist() == users
