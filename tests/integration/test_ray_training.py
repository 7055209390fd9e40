"""Trainings on two Ray workers: what arrives, what they learn, and how they end."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from finished_session import SESSION_SECONDS, Session
from training_session import EPOCHS, SHARD_ROWS

from braidrec.data.folder import DatasetFolder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(SESSION_SECONDS + 60)]


def shard(session: Session, rank: int, num_workers: int, lap: str) -> dict[str, Any]:
    with np.load(session.folder / f"shard-{rank}-of-{num_workers}-{lap}.npz") as kept:
        return dict(kept)


def counted(columns: list[Any]) -> Counter[tuple[Any, ...]]:
    return Counter(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize(("num_workers", "names"), [(2, ["user", "item", "rating", "weight"]), (3, ["user", "item"])])
def test_shards_are_disjoint_and_complete(training_session: Session, num_workers: int, names: list[str]) -> None:
    training_session.step(f"shards of {num_workers}")
    shards = [shard(training_session, rank, num_workers, "first") for rank in range(num_workers)]
    together = [np.concatenate([kept[name] for kept in shards]) for name in names]
    folder = DatasetFolder.open(str(training_session.folder / "prime"))
    stored = dict(zip(("user", "item"), folder.edges("train"), strict=True))
    stored |= {name: folder.column("train", name) for name in names[2:]}
    assert len(together[0]) == SHARD_ROWS
    assert counted(together) == counted([stored[name] for name in names])


@pytest.mark.parametrize("num_workers", [2, 3])
def test_as_many_rows_reach_each_rank_and_padding_goes_no_further(training_session: Session, num_workers: int) -> None:
    training_session.step(f"shards of {num_workers}")
    shards = [shard(training_session, rank, num_workers, "first") for rank in range(num_workers)]
    assert {int(kept["arrived"]) for kept in shards} == {-(-SHARD_ROWS // num_workers)}
    assert sum(len(kept["user"]) for kept in shards) == SHARD_ROWS
    assert min(kept["user"].min() for kept in shards) >= 0


@pytest.mark.parametrize(("rank", "num_workers"), [(0, 2), (1, 2), (0, 3), (2, 3)])
def test_each_pass_brings_the_same_rows_in_the_same_order(
    training_session: Session, rank: int, num_workers: int
) -> None:
    first, second = (shard(training_session, rank, num_workers, lap) for lap in ("first", "second"))
    for name in ("user", "item"):
        np.testing.assert_array_equal(first[name], second[name])


def recall_of_popularity(folder: DatasetFolder, k: int) -> float:
    """Recall@k of recommending to every user of the test split what most others took, without what it took itself."""
    users, items = folder.edges("train")
    order = np.argsort(-np.bincount(items, minlength=folder.num_items), kind="stable").tolist()
    recalls = []
    held_users, held_items = folder.edges("test")
    for user in np.unique(held_users):
        taken = set(items[users == user].tolist())
        best = [item for item in order if item not in taken][:k]
        held = set(held_items[held_users == user].tolist())
        recalls.append(len(held & set(best)) / len(held))
    return float(np.mean(recalls))


def test_two_streamed_workers_learn_what_is_planted(training_session: Session) -> None:
    result = training_session.step("whole")["result"]
    popularity = recall_of_popularity(DatasetFolder.open(str(training_session.folder / "planted")), 20)
    assert result["metrics"]["test/recall@20"] > 2 * popularity
    losses = [epoch["train/loss"] for epoch in training_session.epochs("whole")]
    assert len(losses) == EPOCHS
    assert losses[-1] < 0.7 * losses[0]


def test_drawing_users_uniformly_learns_it_too(training_session: Session) -> None:
    popularity = recall_of_popularity(DatasetFolder.open(str(training_session.folder / "planted")), 20)
    assert training_session.epochs("stopped")[-1]["valid/recall@20"] > 2 * popularity


def test_the_ranks_results_cover_each_test_user_once(training_session: Session) -> None:
    folder = DatasetFolder.open(str(training_session.folder / "planted"))
    parts = sorted((training_session.folder / "runs" / "whole" / "per_user" / "test").iterdir())
    assert [part.name for part in parts] == ["part-00000.parquet", "part-00001.parquet"]
    tables = [pq.read_table(part) for part in parts]
    users = np.concatenate([table.column("user").to_numpy() for table in tables])
    np.testing.assert_array_equal(np.sort(users), np.unique(folder.edges("test")[0]))
    recalls = np.concatenate([table.column("recall@20").to_numpy() for table in tables])
    wanted = training_session.step("whole")["result"]["metrics"]["test/recall@20"]
    assert recalls.mean() == pytest.approx(wanted, rel=1e-12)


def test_the_run_is_in_mlflow_with_metrics_parameters_and_lineage(training_session: Session) -> None:
    client, run = training_session.mlflow("whole")
    assert run.info.status == "FINISHED"
    assert run.data.params["workers.num"] == "2"
    assert run.data.params["data.delivery"] == "stream"
    recalls = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "valid/recall_at_20")]
    told = [epoch["valid/recall@20"] for epoch in training_session.epochs("whole")]
    # The result of the best epoch is logged once more, at that epoch.
    assert set(recalls) == set(enumerate(told, start=1))
    (lineage,) = run.inputs.dataset_inputs
    digest = DatasetFolder.open(str(training_session.folder / "planted")).digest
    assert (lineage.dataset.name, run.data.tags["braidrec.dataset.digest"]) == ("planted", digest)


def test_what_only_one_rank_cannot_do_ends_the_others_too(training_session: Session) -> None:
    damaged = training_session.step("damaged")
    assert f"{training_session.folder}/damaged/interactions/train" in damaged["run_error"]
    assert "prepare the data set again" in damaged["run_error"]


@pytest.mark.parametrize("name", ["whole", "killed", "killed_in_report", "killed_in_saving", "damaged", "died"])
def test_nothing_of_a_run_stays_on_ray(training_session: Session, name: str) -> None:
    step = training_session.step(name)
    assert not step["workers_left"]
    assert step["groups_left"] == []


def test_sigint_ends_the_run_as_killed_and_leaves_no_process(training_session: Session) -> None:
    assert training_session.exit_status == 130
    assert training_session.output.splitlines()[-1] == "stopped by SIGINT"
    _, run = training_session.mlflow("stopped")
    assert run.info.status == "KILLED"
    assert run.data.tags["braidrec.end_reason"] == "stopped by SIGINT"
    assert not (training_session.folder / "runs" / "stopped" / "lease.json").exists()
    assert training_session.surroundings.left_over(seconds=120) == []


def test_ray_says_nothing_but_that_a_worker_died(training_session: Session) -> None:
    from_ray = [line for line in training_session.output.splitlines() if "(raylet)" in line or "(pid=" in line]
    assert all("A worker died or was killed" in line for line in from_ray), from_ray
    assert "Warning" not in training_session.output
    assert "WARNING" not in training_session.output


def test_files_of_a_finished_run(training_session: Session) -> None:
    run = training_session.folder / "runs" / "whole"
    assert json.loads((run / "result.json").read_text())["epochs_run"] == EPOCHS
    assert not (run / "lease.json").exists()
    kept = {folder.name for folder in (run / "checkpoints").iterdir()}
    best = training_session.step("whole")["result"]["best_epoch"]
    assert kept == {f"epoch-{epoch:05d}" for epoch in (best, EPOCHS - 1, EPOCHS)}
    assert Path(training_session.step("whole")["result"]["checkpoint"]).is_dir()
