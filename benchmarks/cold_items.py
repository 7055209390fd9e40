"""Items that training never shows, recommended by their content: Recall@20 beside popularity and chance.

    python benchmarks/cold_items.py --data DATA/lfm2k

A fifth of the items, with all their interactions, tests; a tenth validates; neither is in train. All items are ranked,
those of train included, except each user's own. The epoch is chosen on validation. A ranking at random finds 20 in the
number of items that are ranked. A second call with the same --work continues.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from common import DatasetFolder, prepared, print_json, work_folder
from trainings import Pieces, Training, mean_and_spread

SPLIT = "split={kind: cold_items, valid: 0.1, test: 0.2}"
PREPARED = "model.modalities.transform={standardise: true, l2_norm: true}"
# A training that never lacks an ID, or a modality, does not learn what to do without.
LOST = "model.modalities.dropout=0.2"
AS_LONG = "model.fusion.cold_length=match"
TEXT = ("model.modalities.use=[text]", PREPARED)
# Ranks by the cosine, to which length is nothing.
SOFTMAX = "objective.loss.kind=in_batch_softmax"
FUSED = ("lightgcn", ("model.modalities.use=['*']", PREPARED, LOST))
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "popularity": ("popularity", ()),
    "LightGCN, IDs alone": ("lightgcn", ()),
    "neighbours by content": ("itemknncbf", ("model.modalities.use=[text]", "model.encoder.neighbours=50")),
    "content alone, LightGCN": (FUSED[0], (*FUSED[1], AS_LONG, "model.fusion.use_id=false")),
    "ID and content, LightGCN": (FUSED[0], (*FUSED[1], AS_LONG)),
    "ID and content, LightGCN, lengths kept": FUSED,
    "ID and item graph, LightGCN": ("lightgcn", (*FUSED[1], AS_LONG, "model.item_graph.neighbours=10")),
    "ID and text, LightGCN": ("lightgcn", (*TEXT, AS_LONG)),
    "ID and text, softmax of cosines": ("lightgcn", (*TEXT, SOFTMAX)),
    "text alone, softmax of cosines": ("lightgcn", (*TEXT, SOFTMAX, "model.fusion.use_id=false")),
    "FREEDOM": ("freedom", ("objective.regulariser=0.0001",)),
}
UNTRAINED = ("popularity", "itemknncbf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw lfm2k folder")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="compute threads of a training; left out: all cores")
    parser.add_argument("--work", help="folder for prepared data and results")
    arguments = parser.parse_args()
    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(arguments.threads)
    work = work_folder(arguments.work)
    folder = prepared(str(Path(arguments.data).resolve()), work, "-cold", (SPLIT, "unknown_users=drop"))
    pieces = Pieces(folder.path, work, "cold_items", threads=arguments.threads)
    results: dict[str, Any] = {"chance": f"{_by_chance(folder):.4f}".lstrip("0")}
    for arm, (preset, settings) in ARMS.items():
        course = (
            f"training.epochs={arguments.epochs}",
            f"training.optimizer.learning_rate={arguments.learning_rate}",
            "evaluation.every=3",
            "evaluation.patience=null",
        )
        untrained = preset in UNTRAINED
        seeds = range(2020, 2021 if untrained else 2020 + arguments.seeds)
        trainings = [
            Training(preset=preset, settings=settings, shared=() if untrained else course, seed=seed) for seed in seeds
        ]
        runs = [found for training in trainings if (found := pieces.result(training)) is not None]
        results[arm] = {split: mean_and_spread(runs, f"{split}/recall@20") for split in ("valid", "test")}
        print(f"{arm:40} {results[arm]['test']}", flush=True)
    print_json({"items": folder.num_items, **results})


def _by_chance(folder: DatasetFolder) -> float:
    """Expected Recall@20 of a ranking at random, of the users who test: 20 in the items that are not their own."""
    known = np.bincount(folder.edges("train")[0], minlength=folder.num_users)
    testing = np.unique(folder.edges("test")[0])
    return float(np.mean(20 / (folder.num_items - known[testing])))


if __name__ == "__main__":
    main()
