"""What is refused before any work starts, each message with its key and its mend."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from training_runs import run_config, write_folder

from braidrec.config.load import ConfigError
from braidrec.data.delivery import MemoryDelivery, Rows
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.planted import generate_planted
from braidrec.errors import DivergedError, RunError
from braidrec.training.build import build_parts
from braidrec.training.check import check_run
from braidrec.training.driver import train
from braidrec.training.local_worker import LocalWorker
from braidrec.training.validation import SplitEvaluation, make_ranker

TRAIN = {"user": [0, 0, 1, 2], "item": [0, 1, 1, 2]}
HELD_OUT = {"user": [0, 1], "item": [3, 0]}
SPLITS = {"train": TRAIN, "valid": HELD_OUT, "test": HELD_OUT}
RATED = {name: {**columns, "rating": [4.0] * len(columns["user"])} for name, columns in SPLITS.items()}


def folder(tmp_path: Path, **splits: dict[str, list[float]]) -> DatasetFolder:
    write_folder(tmp_path / "data", {**SPLITS, **splits}, num_users=3, num_items=5)
    return DatasetFolder.open(str(tmp_path / "data"))


def refusal(tmp_path: Path, data: DatasetFolder, *overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        check_run(run_config(tmp_path / "data", tmp_path, *overrides), data)
    return str(refused.value)


def test_what_fits_is_not_refused(tmp_path: Path) -> None:
    data = folder(tmp_path, **RATED)
    for overrides in (
        [],
        ["evaluation.monitor=null", "evaluation.patience=null"],
        ["objective.loss.kind=rating_mse", "evaluation.monitor=rmse"],
        ["evaluation.auc=true", "evaluation.monitor=auc"],
        ["evaluation.at=[7]", "evaluation.monitor=hit_rate@7"],
        ["training.wire=bf16", "workers.num=2"],
        ["training.wire=bf16", "workers.num=2", "training.tables=sharded"],
    ):
        check_run(run_config(tmp_path / "data", tmp_path, *overrides), data)


def test_a_misspelt_monitor(tmp_path: Path) -> None:
    data = folder(tmp_path)
    message = refusal(tmp_path, data, "evaluation.monitor=recal@20")
    assert message.startswith("evaluation.monitor='recal@20' is not computed with evaluation.at=[10, 20].")
    assert "Did you mean 'recall@20'?" in message
    assert "'ndcg@10'" in message


@pytest.mark.parametrize("monitor", ["recall@5", "auc", "rmse"])
def test_a_monitor_that_is_not_computed(tmp_path: Path, monitor: str) -> None:
    assert f"evaluation.monitor={monitor!r} is not computed" in refusal(
        tmp_path, folder(tmp_path), f"evaluation.monitor={monitor}"
    )


def test_patience_without_a_monitor(tmp_path: Path) -> None:
    assert "set evaluation.patience=null too" in refusal(tmp_path, folder(tmp_path), "evaluation.monitor=null")


@pytest.mark.parametrize("at", ["[10, 10, 20]", "[]"])
def test_cut_offs_given_twice_or_not_at_all(tmp_path: Path, at: str) -> None:
    for monitor in ("recall@20", "null"):
        message = refusal(
            tmp_path, folder(tmp_path / monitor[:2]), f"evaluation.at={at}", f"evaluation.monitor={monitor}",
            "evaluation.patience=null",
        )  # fmt: skip
        assert f"evaluation.at={at}: give at least one cut-off k, and each once" in message


def test_an_empty_validation_split(tmp_path: Path) -> None:
    data = folder(tmp_path, valid={"user": [], "item": []})
    message = refusal(tmp_path, data)
    assert "has no validation interactions" in message
    assert "evaluation.monitor=null and evaluation.patience=null" in message
    check_run(run_config(tmp_path / "data", tmp_path, "evaluation.monitor=null", "evaluation.patience=null"), data)


def test_an_empty_train_split(tmp_path: Path) -> None:
    assert "the train split of" in refusal(tmp_path, folder(tmp_path, train={"user": [], "item": []}))


def test_more_workers_than_rows(tmp_path: Path) -> None:
    message = refusal(tmp_path, folder(tmp_path), "workers.num=8", "training.batch_size=8")
    assert message.startswith("workers.num=8: the train split of") and "has only 4 rows" in message
    assert "workers.num=4 or fewer" in message


def test_a_batch_that_workers_cannot_share(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_size=256 is not divisible by workers.num \(3\): use 255 or 258"):
        run_config(tmp_path, tmp_path, "workers.num=3")


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_ratings_missing_in_one_split(tmp_path: Path, split: str) -> None:
    data = folder(tmp_path, **{**RATED, split: SPLITS[split]})
    message = refusal(tmp_path, data, "objective.loss.kind=rating_mse")
    assert message.startswith(f"objective.loss.kind=rating_mse: the {split} split of")
    assert "or use bpr" in message


def test_weights_missing(tmp_path: Path) -> None:
    assert "the train split" in refusal(tmp_path, folder(tmp_path), "objective.use_weights=true")


def test_the_official_sampler_knows_neither_ratings_nor_weights(tmp_path: Path) -> None:
    weighted = {**SPLITS, "train": {**TRAIN, "weight": [1.0, 2.0, 1.0, 1.0]}}
    uniform = "training.order=uniform_users"
    assert "use order=permutation" in refusal(
        tmp_path, folder(tmp_path / "a", **RATED), "objective.loss.kind=rating_mse", uniform
    )
    assert "use order=permutation" in refusal(
        tmp_path, folder(tmp_path / "b", **weighted), "objective.use_weights=true", uniform
    )


def build(tmp_path: Path, data: DatasetFolder, *overrides: str) -> object:
    worker = LocalWorker(torch.device("cpu"), lambda event: None)
    return build_parts(run_config(tmp_path / "data", tmp_path, *overrides), data, worker)


@pytest.mark.parametrize(("kind", "instead"), [("sparse_adam", "adam"), ("row_adagrad", "adagrad")])
def test_optimizers_of_rows_want_sampled_propagation(tmp_path: Path, kind: str, instead: str) -> None:
    data = folder(tmp_path)
    sparse = f"training.optimizer.kind={kind}"
    wanted = rf"{kind} .* use {instead}, or training.propagation.mode=sampled"
    assert re.search(wanted, refusal(tmp_path, data, sparse, "training.propagation.mode=full"))
    with pytest.raises(ConfigError, match=wanted):
        build(tmp_path, data, sparse)  # where full is what auto comes to
    build(tmp_path, data, sparse, "training.propagation.mode=sampled")
    build(tmp_path, data, sparse, "model.encoder.kind=mf")


@pytest.mark.parametrize(("kind", "instead"), [("sparse_adam", "adam"), ("row_adagrad", "adagrad")])
def test_optimizers_of_rows_and_a_hypergraph(tmp_path: Path, kind: str, instead: str) -> None:
    generate_planted(str(tmp_path / "data"), num_users=20, num_items=15, num_interactions=150, num_topics=3)
    message = refusal(
        tmp_path, DatasetFolder.open(str(tmp_path / "data")), f"training.optimizer.kind={kind}",
        "training.propagation.mode=sampled", "model.modalities.use=['*']", "model.hypergraph={}",
    )  # fmt: skip
    assert f"kind={kind} updates the rows of the batch, but model.hypergraph" in message
    assert message.endswith(f"use {instead}")


def test_a_task_called_as_another_summand(tmp_path: Path) -> None:
    data = folder(tmp_path)
    for name in ("loss", "regulariser", "adversarial"):
        with pytest.raises(ConfigError, match=rf"model.self_supervision.{name}: name a task"):
            build(tmp_path, data, f"model.self_supervision.{name}={{kind: edge_prediction}}")
    build(tmp_path, data, "model.self_supervision.other={kind: edge_prediction}")


def test_targets_are_excluded_from_samples_only(tmp_path: Path) -> None:
    data = folder(tmp_path)
    exclude = "training.propagation.exclude_targets=true"
    message = refusal(tmp_path, data, exclude, "training.propagation.mode=full")
    assert "exclude_targets=true needs mode=sampled" in message
    assert build(tmp_path, data, exclude).choice.mode == "sampled"


def test_a_user_with_all_items(tmp_path: Path) -> None:
    """No negative for it; ratings need none."""
    everything = {"user": [0] * 5 + [1], "item": [0, 1, 2, 3, 4, 0], "rating": [1.0, 2.0, 3.0, 4.0, 5.0, 1.0]}
    held_out = {"user": [1], "item": [2], "rating": [3.0]}
    data = folder(tmp_path, train=everything, valid=held_out, test=held_out)
    with pytest.raises(DatasetError, match=r"user 0 .* has all 5 items"):
        build(tmp_path, data)
    assert build(tmp_path, data, "objective.loss.kind=rating_mse").negatives is None


def test_a_run_that_is_refused_late_leaves_its_name_free(tmp_path: Path) -> None:
    everything = {"user": [0] * 5 + [1], "item": [0, 1, 2, 3, 4, 0]}
    folder(tmp_path, train=everything, valid={"user": [1], "item": [2]}, test={"user": [1], "item": [2]})
    config = run_config(tmp_path / "data", tmp_path, "name=one", "training.epochs=1")
    with pytest.raises(DatasetError, match="has all 5 items"):
        train(config)
    assert list((tmp_path / "runs").iterdir()) == []
    folder(tmp_path / "good")
    assert train(run_config(tmp_path / "good" / "data", tmp_path, "name=one", "training.epochs=1")).epochs_run == 1


IGNORED = [
    (("training.order=uniform_users", "data.delivery=stream"), "data.delivery=stream: .* nothing is delivered"),
    (("model.encoder.kind=mf", "training.propagation.mode=sampled"), "kind=mf does not propagate"),
    (("objective.loss.kind=rating_mse", "objective.negatives.per_positive=2"), "uses no negatives"),
    (("workers.backend=nccl",), "nccl is for GPUs"),
    (("training.wire=bf16",), "wire=bf16 has no effect: .* workers.num=0"),
    (("training.wire=bf16", "training.tables=sharded", "workers.num=1"), "wire=bf16 has no effect: .* workers.num=1"),
    (("training.wire=bf16", "training.tables=replicated", "workers.num=2"), "no effect: .* training.tables=replicated"),
]


@pytest.mark.parametrize(("overrides", "message"), IGNORED, ids=[message for _, message in IGNORED])
def test_settings_without_effect(tmp_path: Path, overrides: tuple[str, ...], message: str) -> None:
    assert re.search(message, refusal(tmp_path, folder(tmp_path, **RATED), *overrides))


def test_held_out_pairs_that_are_all_masked(tmp_path: Path) -> None:
    data = folder(tmp_path, valid=TRAIN)
    config = run_config(tmp_path / "data", tmp_path)
    parts = build(tmp_path, data)
    with pytest.raises(ConfigError, match=r"the valid split of .* with mask=train: .* of which 4 are masked"):
        SplitEvaluation(data, parts.interactions, config.evaluation, "valid", mask="train", rating=False, detail=False)


def test_vectors_that_are_no_numbers(tmp_path: Path) -> None:
    """Every loss was finite, the update was not."""
    parts = build(tmp_path, folder(tmp_path))
    make_ranker(parts)
    with torch.no_grad():
        parts.tables["id"].weight[2, 1] = float("inf")
    with pytest.raises(DivergedError, match="the final vectors hold NaN or infinite values"):
        make_ranker(parts)


def test_a_delivery_that_loses_rows_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    whole = MemoryDelivery.batches

    def without_the_first(delivery: MemoryDelivery, epoch: int, rows: int, steps: int, first: int) -> Iterator[Rows]:
        for batch in whole(delivery, epoch, rows, steps, first):
            real = batch["real"].copy()
            real[0] = 0
            yield {**batch, "real": real}

    monkeypatch.setattr(MemoryDelivery, "batches", without_the_first)
    with pytest.raises(RunError, match=r"epoch 1: 3 interactions were trained on, the train split has 4; the delivery"):
        train(run_config(tmp_path / "data", tmp_path))


def test_a_monitor_that_no_user_defines(tmp_path: Path) -> None:
    """User 0 has every item in train, validation or its own candidates: no negative, and so no AUC."""
    train_split = {"user": [0, 0, 0, 0, 1], "item": [0, 1, 2, 3, 0]}
    folder(tmp_path, train=train_split, valid={"user": [0], "item": [4]}, test={"user": [1], "item": [1]})
    overrides = ("evaluation.auc=true", "evaluation.monitor=auc", "model.encoder.kind=mf", "training.batch_size=8")
    with pytest.raises(ConfigError, match=r"evaluation.monitor='auc' is undefined for every validation user"):
        train(run_config(tmp_path / "data", tmp_path, *overrides))
