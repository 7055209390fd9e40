"""From posters and plots to recommendations: what vectors made here are worth for warm and for cold movies.

    python benchmarks/posters.py --data ../shared/data/ml100k-posters

MovieLens 100k, ratings of 4 and 5, split twice: a tenth of each user's movies tests (warm), and a tenth of the movies
tests with all their ratings (cold). Posters go through EfficientNet-Lite0, title and plot through MiniLM, then LightGCN
is trained on IDs only, IDs and posters, IDs and texts, all three. The epoch is chosen on validation; Recall@20 of the
test split, mean and spread over seeds. A second call continues.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from common import ROOT, print_json, work_folder
from trainings import Pieces, Training

ARMS = {"ID": "[]", "ID + poster": "[image]", "ID + text": "[text]", "ID + both": "[image, text]"}
SPLITS = {
    "warm": "split={kind: random_ratio, valid: 0.1, test: 0.1}",
    "cold": "split={kind: cold_items, valid: 0.1, test: 0.1}",
}
SHARED = (
    "training.optimizer.learning_rate=0.01",
    "evaluation.every=5",
    "evaluation.patience=null",
)


WITH_MODALITIES = (
    "model.modalities.transform={standardise: true, l2_norm: true}",
    # Movies lose modalities while training, and so learn what to do without one.
    "model.modalities.dropout=0.2",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with ratings.csv, items.csv and posters/")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", help="folder for prepared data and results")
    arguments = parser.parse_args()
    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(None)
    raw, work = Path(arguments.data).resolve(), work_folder(arguments.work)
    results: dict[str, Any] = {}
    for split, option in SPLITS.items():
        folder = _with_features(raw, work, split, option)
        pieces = Pieces(str(folder), work, "posters")
        for arm, used in ARMS.items():
            settings = (f"model.modalities.use={used}", *WITH_MODALITIES) if used != "[]" else ()
            shared = (*SHARED, f"training.epochs={arguments.epochs}")
            found = [
                pieces.result(Training(preset="lightgcn", settings=settings, shared=shared, seed=seed))
                for seed in range(arguments.seeds)
            ]
            recalls = [result["test/recall@20"] for result in found if result is not None]
            spread = stdev(recalls) if len(recalls) > 1 else 0.0
            results.setdefault(arm, {})[split] = {"mean": round(fmean(recalls), 4), "spread": round(spread, 4)}
            print(
                f"{split:5} {arm:12} Recall@20 {fmean(recalls):.4f} ± {spread:.4f} ({len(recalls)} seeds)", flush=True
            )
    print_json(results)


def _with_features(raw: Path, work: Path, split: str, option: str) -> Path:
    """The prepared data set with both modalities, by the commands of docs/extraction.md; what is there is kept."""
    target = work / "datasets" / f"posters_{split}"
    if not (target / "dataset.json").is_file():
        keys = [f"output={target}", f"source.paths=[{raw}/ratings.csv]", f"items.paths=[{raw}/items.csv]",
                f"media.image.folder={raw}/posters", "min_rating=4", option]  # fmt: skip
        _run("prepare.py", "datasets/ml100k_posters.yaml", keys)
    _run("extract.py", "extract/ml100k_posters_image.yaml", [f"data={target}"])
    _run("extract.py", "extract/ml100k_posters_text.yaml", [f"data={target}", f"source.paths=[{raw}/items.csv]"])
    return target


def _run(job: str, config: str, keys: list[str]) -> None:
    settings = [part for key in keys for part in ("--set", key)]
    command = [sys.executable, str(ROOT / "jobs" / job), "--config", str(ROOT / "configs" / config), *settings]
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(status)


if __name__ == "__main__":
    main()
