"""From posters and plots to recommendations: what vectors made here are worth for warm and for cold movies.

    python benchmarks/posters.py --data DATA/ml100k-posters

MovieLens 100k, ratings of 4 and 5, split twice: a tenth of each user's movies tests (warm), and a tenth of the movies
tests with all their ratings (cold). Posters go through EfficientNet-Lite0, title and plot through MiniLM, then LightGCN
is trained on IDs only, IDs and posters, IDs and texts, all three: for warm movies by BPR, for cold ones, among all
movies, by a softmax over cosines. The epoch is chosen on validation; Recall@20 of the test split, mean and spread over
seeds. A second call continues.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import DatasetFolder, print_json, run_job, work_folder
from trainings import Pieces, Training, mean_and_spread

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
# Nothing reaches a movie without ratings over the graph: its vector is short, and by inner products it would lose to
# the popular ones by that alone. Cosines have no lengths.
OF_SPLIT: dict[str, tuple[str, ...]] = {
    "warm": (),
    "cold": ("objective.loss={kind: in_batch_softmax, cosine: true, temperature: 0.2}",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with ratings.csv, items.csv and posters/")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="compute threads of a training; left out: all cores")
    parser.add_argument("--work", help="folder for prepared data and results")
    arguments = parser.parse_args()
    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(arguments.threads)
    raw, work = Path(arguments.data).resolve(), work_folder(arguments.work)
    results: dict[str, Any] = {arm: {} for arm in ARMS}
    coverage: dict[str, Any] = {}
    for split, option in SPLITS.items():
        folder = with_features(raw, work, split, ("min_rating=4", option))
        coverage[split] = {
            name: f"{entry.num_vectors} of {folder.num_items} movies"
            for name, entry in folder.description.modalities.items()
        }
        pieces = Pieces(folder.path, work, "posters", threads=arguments.threads, data=folder.digest)
        for arm, used in ARMS.items():
            settings = (f"model.modalities.use={used}", *WITH_MODALITIES) if used != "[]" else ()
            settings += OF_SPLIT[split]
            shared = (*SHARED, f"training.epochs={arguments.epochs}")
            runs = [
                found
                for seed in range(arguments.seeds)
                if (found := pieces.result(Training(preset="lightgcn", settings=settings, shared=shared, seed=seed)))
            ]
            results[arm][split] = mean_and_spread(runs, "test/recall@20")
            print(f"{split:5} {arm:12} Recall@20 {results[arm][split]} ({len(runs)} seeds)", flush=True)
    print(f"| | {' | '.join(SPLITS)} |\n|{'---|' * (1 + len(SPLITS))}")
    for arm, found in results.items():
        print(f"| {arm} | " + " | ".join(found.values()) + " |")
    print_json({"recall@20": results, "coverage": coverage})


def with_features(raw: Path, work: Path, name: str, settings: Sequence[str]) -> DatasetFolder:
    """The data set, prepared with further settings (`key=value`), with both modalities, by the commands of
    docs/extraction.md; what is there is kept."""
    target = work / "datasets" / f"posters_{name}"
    if not (target / "dataset.json").is_file():
        keys = [f"output={target}", f"source.paths=[{raw}/ratings.csv]", f"items.paths=[{raw}/items.csv]",
                f"media.image.folder={raw}/posters", *settings]  # fmt: skip
        run_job("prepare.py", keys, "datasets/ml100k_posters.yaml")
    run_job("extract.py", [f"data={target}"], "extract/ml100k_posters_image.yaml")
    texts = [f"data={target}", f"source.paths=[{raw}/items.csv]"]
    run_job("extract.py", texts, "extract/ml100k_posters_text.yaml")
    return DatasetFolder.open(str(target))


if __name__ == "__main__":
    main()
