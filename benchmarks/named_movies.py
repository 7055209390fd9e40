"""The two parts of named.py on MovieLens 100k with posters."""

import argparse
from pathlib import Path

import numpy as np
from common import DatasetFolder
from posters import SPLITS, with_features
from trainings import Pieces, Search, markdown, mean_and_spread, time_and_memory

LENGTH_ONE = "model.modalities.transform.l2_norm=true"
VBPR_RATES = ("training.optimizer.learning_rate=0.003", "training.optimizer.learning_rate=0.01")
SMALL_NETWORK = (
    "model.encoder.network={kind: paper, stride: 2, kernel: 7, channels: [16, 32, 64, 64, 64], hidden: [128, 128]}"
)
DVBPR_RATES = ("training.optimizer.learning_rate=0.0003", "training.optimizer.learning_rate=0.001")
DVBPR_REGULARISERS = ("objective.regulariser=0.1", "objective.regulariser=1")
REGULARISERS = ("objective.regulariser=0.001", "objective.regulariser=0.01")
POSTERS: dict[str, tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "popularity": ("popularity", (), ((),)),
    "vbpr": (
        "VBPR, extracted vectors",
        ("model.dim=64", "model.encoder.content_dim=64", "model.modalities.use=[image]", LENGTH_ONE),
        tuple((rate, regulariser) for rate in VBPR_RATES for regulariser in REGULARISERS),
    ),
    "dvbpr": (
        "DVBPR, posters",
        (
            "model.dim=32",
            "model.encoder.side=64",
            SMALL_NETWORK,
        ),
        tuple((rate, decay) for rate in DVBPR_RATES for decay in DVBPR_REGULARISERS),
    ),
}
"""Name, what is changed in the preset, and the points."""

RATE = "training.optimizer.learning_rate=0.005"
RATING_REGULARISERS = ("objective.regulariser=0.1", "objective.regulariser=0.2")
WITH_RATES = tuple(
    (rate, weight) for rate in (RATE, "training.optimizer.learning_rate=0.002") for weight in RATING_REGULARISERS
)
WITH_PAIRS = tuple(
    (f"model.encoder.relation_weight={pairs}", weight) for weight in RATING_REGULARISERS for pairs in (1, 0.1)
)
NO_PAIRS = ("model.encoder.relation_weight=0",)
NO_FEATURES = ("model.encoder.visual=false", "model.modalities.use=[]")
RATINGS: dict[str, tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "mf": ("plain matrix factorisation", (*NO_PAIRS, *NO_FEATURES), WITH_RATES),
    "visual_mf": ("features, no pairs (visual matrix factorisation)", (*NO_PAIRS, LENGTH_ONE), WITH_RATES),
    "cofactorisation": ("pairs, no features (co-factorisation)", (RATE, *NO_FEATURES), WITH_PAIRS),
    "vmcf": ("VMCF", (RATE, LENGTH_ONE), WITH_PAIRS),
    "visual_mf_raw": (
        "features as they were extracted, no pairs",
        (*NO_PAIRS, "model.modalities.transform.l2_norm=false"),
        WITH_RATES,
    ),
}
"""Name, what is changed in the preset, and the points."""


def poster_tables(raw: Path, work: Path, arguments: argparse.Namespace) -> str:
    """Warm movies, a tenth of each user's liked ones tests, and cold ones, a tenth of the movies tests."""
    return "\n\n".join(_posters(raw, work, split, arguments) for split in SPLITS)


def _posters(raw: Path, work: Path, split: str, arguments: argparse.Namespace) -> str:
    folder = with_features(raw, work, split, ("min_rating=4", SPLITS[split]))
    pieces = Pieces(folder.path, work, "named", threads=arguments.threads, data=folder.digest)
    shared = (
        f"training.epochs={arguments.epochs}",
        f"evaluation.every={arguments.every}",
        f"evaluation.patience={arguments.patience}",
        "evaluation.monitor=auc",
        "evaluation.auc=true",
        "evaluation.slices=false",
    )
    lines = []
    for system, (name, always, points) in POSTERS.items():
        if system not in arguments.systems:
            continue
        untrained = system == "popularity"
        search = Search(
            preset=system,
            points=points,
            always=always,
            tried=arguments.points,
            shared=shared[3:] if untrained else shared,
            seeds=(1,) if untrained else tuple(arguments.seeds),
            watched="valid/auc",
        )
        runs = search.reported(pieces, only_stored=arguments.only_stored, measure=arguments.measure and not untrained)
        if runs:
            keys = ("test/auc", "test/recall@20", "valid/auc", "valid/recall@20")
            values = [mean_and_spread(runs, key) for key in keys]
            costs = ["", "", ""]
            if not untrained:
                costs = [", ".join(str(run["best_epoch"]) for run in runs), *time_and_memory(runs)]
            lines.append([name, runs[0]["settings"], *values, *costs])
            print(split, " | ".join(lines[-1]), flush=True)
    head = ["Setting", "AUC", "Recall@20", "Validation AUC", "Validation R@20", "Best epoch", "s/epoch", "Peak MiB"]
    return markdown([f"{split} movies", *head], lines)


def rating_table(raw: Path, work: Path, arguments: argparse.Namespace) -> str:
    """RMSE and MAE on all ratings, eight tenths of each user's to train on."""
    folder = with_features(raw, work, "ratings", (SPLITS["warm"],))
    pieces = Pieces(folder.path, work, "named", threads=arguments.threads, data=folder.digest)
    shared = (
        "training.epochs=60",
        "evaluation.every=2",
        "evaluation.patience=3",
        "evaluation.slices=false",
    )
    lines = [["mean of the train ratings", "", *_of_the_mean(folder), "", "", "", ""]]
    for system, (name, always, points) in RATINGS.items():
        if system not in arguments.systems:
            continue
        search = Search(
            preset="vmcf",
            points=points,
            always=always,
            tried=arguments.points,
            shared=shared,
            seeds=tuple(arguments.seeds),
            watched="valid/rmse",
            lower_is_better=True,
        )
        runs = search.reported(pieces, only_stored=arguments.only_stored, measure=arguments.measure)
        if runs:
            values = [mean_and_spread(runs, key) for key in ("test/rmse", "test/mae", "valid/rmse")]
            best = ", ".join(str(run["best_epoch"]) for run in runs)
            lines.append([name, runs[0]["settings"], *values, best, *time_and_memory(runs)])
            print(" | ".join(lines[-1]), flush=True)
    head = ["ratings", "Setting", "RMSE", "MAE", "Validation RMSE", "Best epoch", "s/epoch", "Peak MiB"]
    return markdown(head, lines)


def _of_the_mean(folder: DatasetFolder) -> list[str]:
    """RMSE and MAE of a prediction that is always the mean of the train ratings."""
    train, test = (folder.column(split, "rating") for split in ("train", "test"))
    assert train is not None and test is not None, "the data set was prepared with its ratings"
    errors = test - train.mean()
    return [f"{value:.4f}" for value in (np.sqrt(np.square(errors).mean()), np.abs(errors).mean())]
