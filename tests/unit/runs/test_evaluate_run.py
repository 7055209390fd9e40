"""`braidrec.evaluate` of finished runs, against what training itself measured and naive loops over the files."""

import json
import shutil
from math import isclose, isnan, sqrt
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from finished_runs import Finished

import braidrec
from braidrec.config.load import ConfigError
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.data.storage import Location
from braidrec.errors import CheckpointError
from braidrec.runs.evaluate import EvaluateResult
from braidrec.runs.finished import open_run, open_trained
from braidrec.training.checkpoint import CheckpointStore

PER_USER = ("recall@5", "recall@20", "ndcg@5", "ndcg@20", "precision@5", "map@20", "mrr@20", "hit_rate@5")


def metrics_of(result: EvaluateResult) -> dict[str, float]:
    return {name: value for name, value in result.result.metrics.items() if not isnan(value)}


def test_the_test_split_as_training_tested_it(lightgcn: Finished) -> None:
    """To the last bit, though training propagated in bf16."""
    done = braidrec.evaluate("lightgcn", storage=lightgcn.storage, mask="train+valid", at=(5, 20), auc=True)
    wanted = {name.removeprefix("test/"): value for name, value in lightgcn.result.metrics.items() if "test/" in name}
    assert metrics_of(done) == wanted
    assert done.result.slices == lightgcn.result.slices


def test_the_validation_split_and_a_rating_model(lightgcn: Finished, ratings: Finished) -> None:
    for run in (lightgcn, ratings):
        done = braidrec.evaluate(run.result.name, storage=run.storage, split="valid", at=[5, 20], auc=run is lightgcn)
        wanted = {name.removeprefix("valid/"): v for name, v in run.result.metrics.items() if "valid/" in name}
        assert metrics_of(done) == wanted
    assert "rmse" in metrics_of(done) and "mae" in metrics_of(done)


def test_rmse_by_a_loop_over_the_pairs(ratings: Finished) -> None:
    run = open_run("ratings", ratings.storage)
    users, items = run.data.edges("test")
    truth = run.data.column("test", "rating")
    scores = run.ranker.score(torch.arange(run.data.num_users)).numpy()
    errors = [float(scores[u, i]) - float(r) for u, i, r in zip(users, items, truth, strict=True)]
    done = braidrec.evaluate("ratings", storage=ratings.storage)
    assert metrics_of(done)["rmse"] == pytest.approx(sqrt(np.mean(np.square(errors))), rel=1e-6)
    assert metrics_of(done)["mae"] == pytest.approx(np.mean(np.abs(errors)), rel=1e-6)


@pytest.mark.parametrize("mask", ["train", "train+valid"])
def test_recall_by_a_loop_over_users(lightgcn: Finished, mask: str) -> None:
    run = open_run("lightgcn", lightgcn.storage)
    pairs = {
        split: set(zip(*(a.tolist() for a in run.data.edges(split)), strict=True))
        for split in ("train", "valid", "test")
    }
    scores = run.ranker.score(torch.arange(run.data.num_users)).numpy()
    masked = pairs["train"] | (pairs["valid"] if mask == "train+valid" else set())
    recalls = []
    for user in range(run.data.num_users):
        held_out = {item for owner, item in pairs["test"] if owner == user}
        if not held_out:
            continue
        candidates = [item for item in range(run.data.num_items) if (user, item) not in masked]
        best = sorted(candidates, key=lambda item: (-scores[user, item], item))[:5]
        recalls.append(len(held_out & set(best)) / len(held_out))
    done = braidrec.evaluate("lightgcn", storage=lightgcn.storage, mask=mask, at=(5,))
    assert metrics_of(done)["recall@5"] == pytest.approx(np.mean(recalls), rel=1e-12)


def test_masks_matter(lightgcn: Finished) -> None:
    results = [
        metrics_of(braidrec.evaluate("lightgcn", storage=lightgcn.storage, mask=mask))
        for mask in ("train", "train+valid")
    ]
    assert results[0] != results[1]


def test_the_files(lightgcn: Finished, tmp_path: Path) -> None:
    """The values of every user average to the metrics; the JSON holds what was returned."""
    done = braidrec.evaluate("lightgcn", storage=lightgcn.storage, at=(5, 20), output=str(tmp_path / "out"))
    assert Path(done.metrics_file).parent == Path(done.per_user_file).parent == tmp_path / "out"
    users = pq.read_table(done.per_user_file)
    held_out = DatasetFolder.open(lightgcn.data).edges("test")
    assert users["user"].to_pylist() == sorted(set(held_out[0].tolist()))
    assert users["num_held_out"].to_pylist() == np.unique(held_out[0], return_counts=True)[1].tolist()
    for name in PER_USER:
        assert isclose(np.mean(users[name].to_numpy()), done.result.metrics[name], rel_tol=1e-12)
    stored = json.loads(Path(done.metrics_file).read_text())
    assert (stored["run"], stored["split"], stored["mask"]) == (done.run, "test", "train")
    assert stored["result"]["metrics"]["recall@20"] == done.result.metrics["recall@20"]
    assert stored["result"]["num_users"] == users.num_rows


def test_files_go_to_the_run_by_default(lightgcn: Finished) -> None:
    done = braidrec.evaluate("lightgcn", storage=lightgcn.storage)
    assert done.metrics_file == f"{lightgcn.result.folder}/evaluations/test-mask-train.json"


def test_progress_counts_users(lightgcn: Finished) -> None:
    seen: list[tuple[int, int]] = []
    done = braidrec.evaluate("lightgcn", storage=lightgcn.storage, progress=lambda n, total: seen.append((n, total)))
    assert seen[-1] == (done.result.num_users, done.result.num_users)


def test_a_run_by_its_folder_and_moved_data(lightgcn: Finished, tmp_path: Path) -> None:
    shutil.copytree(lightgcn.result.folder, tmp_path / "copy")
    shutil.copytree(lightgcn.data, tmp_path / "moved")
    wanted = metrics_of(braidrec.evaluate("lightgcn", storage=lightgcn.storage))
    for run in (str(tmp_path / "copy"), (tmp_path / "copy").as_uri()):
        assert metrics_of(braidrec.evaluate(run, data_path=str(tmp_path / "moved"))) == wanted


def test_other_data_is_refused(lightgcn: Finished, tmp_path: Path) -> None:
    generate_planted(str(tmp_path / "other"), num_users=60, num_items=45, num_interactions=800, seed=9, modalities={})
    with pytest.raises(ConfigError, match="run 'lightgcn' was started on data with digest"):
        braidrec.evaluate("lightgcn", storage=lightgcn.storage, data_path=str(tmp_path / "other"))


def test_an_unfinished_run_is_refused(lightgcn: Finished, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    shutil.copytree(lightgcn.result.folder, unfinished)
    (unfinished / "result.json").unlink()
    with pytest.raises(
        ConfigError, match=r"run 'unfinished' in .* has no result yet: finish it with --resume unfinished"
    ):
        braidrec.evaluate("unfinished", storage=str(tmp_path))
    with pytest.raises(ConfigError, match="no result yet"):
        braidrec.recommend("unfinished", storage=str(tmp_path))


def test_a_damaged_checkpoint_is_refused(lightgcn: Finished, tmp_path: Path) -> None:
    shutil.copytree(lightgcn.result.folder, tmp_path / "damaged")
    file = tmp_path / "damaged" / "checkpoints" / f"epoch-{lightgcn.result.best_epoch:05d}" / "tensors.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CheckpointError, match=r"tensors\.safetensors is damaged"):
        braidrec.evaluate(str(tmp_path / "damaged"))


def test_parameters_of_another_version_are_refused(fused: Finished, tmp_path: Path) -> None:
    """By name, in all that opens a run."""
    shutil.copytree(fused.result.folder, tmp_path / "old")
    store = CheckpointStore(Location.of(str(tmp_path / "old" / "checkpoints")), warn=lambda message: None)
    saved, state = store.load(fused.result.best_epoch)
    moved = next(name for name in saved if name.startswith("model:") and name.endswith(".bias"))
    saved["model:elsewhere.bias"] = saved.pop(moved)
    store.save(saved, state)
    wanted = (
        rf"run 'old' in .*missing: {moved.removeprefix('model:')}; unexpected: elsewhere\.bias\); "
        "train it anew with this version"
    )
    for use in (open_run, open_trained):
        with pytest.raises(CheckpointError, match=wanted):
            use(str(tmp_path / "old"))
    saved[moved] = saved.pop("model:elsewhere.bias")[:-1].contiguous()
    store.save(saved, state)
    with pytest.raises(CheckpointError, match=rf"of another shape: {moved.removeprefix('model:')}\)"):
        open_run(str(tmp_path / "old"))


def test_an_unknown_run_lists_the_others(lightgcn: Finished, ratings: Finished) -> None:
    with pytest.raises(ConfigError, match=r"no run 'lightgnc' in .*; there are \['lightgcn', 'ratings'\]"):
        braidrec.evaluate("lightgnc", storage=lightgcn.storage)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splt": "test"}, "splt"),
        ({"split": "train"}, "split"),
        ({"at": "20"}, "at"),
        ({"split": "valid", "mask": "train+valid"}, "with mask=train.valid: nothing to evaluate"),
        ({"at": (5, 5)}, "each"),
    ],
)
def test_options_that_make_no_sense(lightgcn: Finished, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        braidrec.evaluate("lightgcn", storage=lightgcn.storage, **options)
