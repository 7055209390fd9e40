"""Modalities taken away at evaluation, results by what items have, and what attention is logged in training."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finished_runs import NUM_ITEMS, Finished

import braidrec
from braidrec.command_line import modality_share
from braidrec.config.load import ConfigError, load_config
from braidrec.config.runs import EvaluateConfig
from braidrec.data.folder import DatasetFolder
from braidrec.display.results import print_evaluate_result, print_train_result
from braidrec.runs.finished import FinishedRun, open_run


def opened(run: Finished, **drop: object) -> FinishedRun:
    return open_run(run.result.name, run.storage, **drop)


def has_image(run: Finished) -> np.ndarray:
    return opened(run).present["image"]


def test_items_that_lose_a_modality_change_and_no_others(fused: Finished) -> None:
    """Without propagation an item's vector is its own: the sum of its ID and what is left."""
    whole, less = opened(fused), opened(fused, drop_modality={"image": 0.5})
    lost = whole.present["image"] & ~less.present["image"]
    assert lost.sum() == int(0.5 * whole.present["image"].sum() + 0.5) > 5
    assert not (less.present["image"] & ~whole.present["image"]).any()
    np.testing.assert_array_equal(less.present["text"], whole.present["text"])
    changed = (whole.ranker.item_vectors() != less.ranker.item_vectors()).any(1).numpy()
    np.testing.assert_array_equal(changed, lost)
    # What is lost is the projected image: the same for an item, whatever else it loses.
    none = opened(fused, drop_modality={"image": 1.0, "text": 1.0}).ranker.item_vectors()
    no_text = opened(fused, drop_modality={"text": 1.0}).ranker.item_vectors()
    no_image = opened(fused, drop_modality={"image": 1.0}).ranker.item_vectors()
    torch.testing.assert_close(whole.ranker.item_vectors() - no_image, no_text - none, rtol=0, atol=1e-6)
    assert not torch.equal(no_image, none)


def test_shares_are_nested_and_the_seed_decides(fused: Finished) -> None:
    def present(share: float, seed: int = 0) -> np.ndarray:
        return opened(fused, drop_modality={"image": share}, drop_seed=seed).present["image"]

    assert not (present(0.75) & ~present(0.25)).any()
    assert not present(1.0).any()
    np.testing.assert_array_equal(present(0.5), present(0.5))
    assert (present(0.5) != present(0.5, seed=1)).any()


def test_evaluation_says_what_was_dropped(fused: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    def evaluate(**options: object) -> braidrec.runs.evaluate.EvaluateResult:
        return braidrec.evaluate("fused", storage=fused.storage, at=(5, 20), auc=True, **options)

    plain, nothing = evaluate(), evaluate(drop_modality={"image": 0.0})
    dropped = evaluate(drop_modality={"text": 0.25, "image": 1})
    assert nothing.result.metrics == plain.result.metrics
    assert dropped.result.metrics["auc"] != plain.result.metrics["auc"]
    names = [Path(done.metrics_file).name for done in (plain, nothing, dropped)]
    assert names == [
        "test-mask-train.json", "test-mask-train-drop-image-0.json", "test-mask-train-drop-image-1-drop-text-0.25.json",
    ]  # fmt: skip
    seeded = evaluate(drop_modality={"text": 0.25}, drop_seed=3)
    assert Path(seeded.per_user_file).name == "test-mask-train-drop-text-0.25-seed-3-per-user.parquet"
    assert json.loads(Path(dropped.metrics_file).read_text())["drop_modality"] == {"text": 0.25, "image": 1.0}
    print_evaluate_result(dropped)
    shown = capsys.readouterr().out
    assert "0.25 without text" in shown and "1 without image" in shown and "item_modalities" in shown


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ({"audio": 0.5}, r"drop_modality: the run does not use a modality 'audio'; it looks at \['image', 'text'\]"),
        ({"image": 1.5}, r"drop_modality.image: must be .*1"),
        ({"image": -0.1}, r"drop_modality.image: must be .*0"),
        ({"image": "half"}, r"drop_modality.image: must be a number, not 'half'"),
    ],
)
def test_what_cannot_be_dropped_is_refused(fused: Finished, drop: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        braidrec.evaluate("fused", storage=fused.storage, drop_modality=drop)


def test_a_run_without_modalities_has_none_to_drop(lightgcn: Finished) -> None:
    with pytest.raises(ConfigError, match="does not use a modality 'image'; it looks at none"):
        braidrec.evaluate("lightgcn", storage=lightgcn.storage, drop_modality={"image": 0.5})
    assert "item_modalities" not in lightgcn.result.slices


def test_the_command_line(fused: Finished) -> None:
    overrides = ["run=x", "drop_modality.text=0.25", modality_share("image=0.5"), modality_share("a.b=1")]
    assert load_config(EvaluateConfig, [], overrides).drop_modality == {"text": 0.25, "image": 0.5, "a.b": 1.0}
    for wrong in ("image", "=0.5", "image=", "image=half"):
        with pytest.raises(argparse.ArgumentTypeError, match=rf"'{wrong}': expected NAME=SHARE"):
            modality_share(wrong)


@pytest.mark.parametrize("drop", [{}, {"image": 0.6}])
def test_recall_of_items_by_what_they_have(fused: Finished, drop: dict[str, float]) -> None:
    """Against a loop over users; an item that lost a modality counts as not having it."""
    run = opened(fused, drop_modality=drop)
    labels = [
        "+".join(name for name in ("image", "text") if run.present[name][item]) or "none" for item in range(NUM_ITEMS)
    ]
    data = DatasetFolder.open(fused.data)
    pairs = {split: list(zip(*(a.tolist() for a in data.edges(split)), strict=True)) for split in ("train", "test")}
    scores = run.ranker.score(torch.arange(data.num_users)).numpy()
    for user, item in pairs["train"]:
        scores[user, item] = -np.inf
    recalls: dict[str, list[float]] = {label: [] for label in labels}
    for user in range(data.num_users):
        best = set(sorted(range(NUM_ITEMS), key=lambda item: (-scores[user, item], item))[:5])
        for label in recalls:
            wanted = {item for owner, item in pairs["test"] if owner == user and labels[item] == label}
            if wanted:
                recalls[label].append(len(wanted & best) / len(wanted))
    found = braidrec.evaluate("fused", storage=fused.storage, at=(5,), drop_modality=drop).result.slices
    groups = found["item_modalities"]
    assert set(groups) == set(labels) == {"image+text", "image", "text", "none"}
    for label, values in recalls.items():
        assert groups[label]["num_users"] == len(values)
        assert groups[label].get("recall@5") == (pytest.approx(np.mean(values)) if values else None)


def test_training_tells_the_same_groups(fused: Finished) -> None:
    done = braidrec.evaluate("fused", storage=fused.storage, at=(5, 20), auc=True)
    assert done.result.slices == fused.result.slices


def test_attention_is_logged_at_validations_and_told_once_in_the_end(
    attending: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [json.loads(line) for line in (Path(attending.result.folder) / "metrics.jsonl").read_text().splitlines()]
    told = [{key: value for key, value in line["metrics"].items() if "attention/" in key} for line in lines]
    assert [bool(metrics) for metrics in told] == [False, True, False, True]
    final = {key: value for key, value in attending.result.metrics.items() if "attention/" in key}
    assert final == told[attending.result.best_epoch - 1]
    present = opened(attending).present
    assert final["attention/id/present"] == 1.0
    for name in ("image", "text"):
        assert final[f"attention/{name}/present"] == pytest.approx(present[name].mean())
        assert 0 < final[f"attention/{name}/q10"] <= final[f"attention/{name}/q50"] <= final[f"attention/{name}/q90"]
    # Weights of an item add up to 1, and are 0 where it has no such strand: this fails if names are mixed up.
    means = sum(
        final[f"attention/{name}/present"] * final[f"attention/{name}/mean"] for name in ("id", "image", "text")
    )
    assert means == pytest.approx(1.0, abs=1e-6)
    print_train_result(attending.result)
    lines_shown = capsys.readouterr().out.splitlines()
    for name in ("id", "image", "text"):
        (row,) = (line for line in lines_shown if line.startswith("│") and f"│ {name} " in line)
        cells = [float(cell) for cell in row.strip("│").split("│")[1:]]
        shown = [final[f"attention/{name}/{part}"] for part in ("mean", "q10", "q90")]
        assert cells == pytest.approx(shown, abs=1e-4)


def test_models_without_weights_tell_none(fused: Finished, lightgcn: Finished) -> None:
    for run in (fused, lightgcn):
        assert not [name for name in run.result.metrics if name.startswith("attention/")]


def test_a_group_without_users_hides_no_others(fused: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    done = braidrec.evaluate("fused", storage=fused.storage, at=(5,))
    groups = {"warm": {"num_users": 0.0}, "cold": {"num_users": 3.0, "recall@5": 0.625}}
    print_evaluate_result(replace(done, result=replace(done.result, slices={"item_warmth": groups})))
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["│", "warm", "│", "0", "│", "–", "│"] in rows
    assert ["│", "cold", "│", "3", "│", "0.625", "│"] in rows
