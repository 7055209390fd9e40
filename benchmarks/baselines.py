"""Popularity, BPR-MF and LightGCN, tuned on the validation split alone, then tested with several seeds.

    python benchmarks/baselines.py --data DATA/tiktok --work /tmp/baselines
    python benchmarks/baselines.py --data DATA/lfm2k --work /tmp/baselines

LightGCN over 1–4 layers × two regularisers, BPR-MF over the same; the best validation Recall@20 of the first
seed decides, and the chosen setting is trained with all seeds. Finished runs are kept in --work and not repeated. On
TikTok the published column is what is called validation here (docs/results.md), so both splits are printed.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from common import prepared, print_json, run_config, work_folder

METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw MMRec folder or dataset folder")
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--regularisers", type=float, nargs="+", default=[1e-4, 1e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--patience", type=int, default=20, help="validations without a gain before stopping")
    parser.add_argument("--every", type=int, default=2, help="epochs between validations")
    parser.add_argument("--work", help="folder for prepared data and runs")
    arguments = parser.parse_args()
    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(None)
    work = work_folder(arguments.work)
    data = prepared(arguments.data, work)
    length = [
        f"training.epochs={arguments.epochs}",
        f"evaluation.patience={arguments.patience}",
        f"evaluation.every={arguments.every}",
    ]
    first, *others = arguments.seeds
    result: dict[str, Any] = {"data": data.description.name, "popularity": _popularity(data)}
    for model, variants in _grids(arguments).items():
        tried = {" ".join(keys): _train(data, work, model, [*length, *keys], first) for keys in variants}
        chosen = max(tried, key=lambda key: tried[key]["valid/recall@20"])
        runs = [tried[chosen]] + [_train(data, work, model, [*length, *chosen.split()], seed) for seed in others]
        result[model] = {
            "chosen": chosen,
            "validation of every setting": {key: round(run["valid/recall@20"], 4) for key, run in tried.items()},
            "mean": _over(runs, statistics.fmean),
            "standard deviation": _over(runs, statistics.stdev) if len(runs) > 1 else None,
            "epochs": [run["best_epoch"] for run in runs],
        }
    print_json(result)


def _grids(arguments: argparse.Namespace) -> dict[str, list[list[str]]]:
    regularisers = [f"objective.regulariser={value}" for value in arguments.regularisers]
    layers = [f"model.encoder.layers={value}" for value in arguments.layers]
    return {"bpr_mf": [[r] for r in regularisers], "lightgcn": [[r, n] for n in layers for r in regularisers]}


def _train(data: Any, work: Path, model: str, keys: list[str], seed: int) -> dict[str, Any]:
    """One run, or its stored result."""
    from braidrec.training.driver import train

    readable = "_".join(key.rpartition(".")[2].replace("=", "") for key in keys if "evaluation" not in key)
    name = f"{data.description.name}-{model}-{readable}-seed{seed}"
    stored = work / "runs" / name / "result.json"
    if not stored.is_file():
        unfinished = name if (work / "runs" / name / "config.yaml").is_file() else None
        train(run_config(model, data, work, [*keys, f"seed={seed}", f"name={name}"]), resume=unfinished)
    result = json.loads(stored.read_text())
    return {**result["metrics"], "best_epoch": result["best_epoch"]}


def _popularity(data: Any) -> dict[str, float]:
    import numpy as np

    from braidrec.data.pairs import pairs_of
    from braidrec.evaluation.evaluator import Evaluator
    from braidrec.evaluation.ranker import PopularityRanker

    train = pairs_of(data, ["train"])
    users, items = data.edges("train")
    item_degree = np.bincount(items, minlength=data.num_items)
    user_degree = np.bincount(users, minlength=data.num_users)
    found = {}
    for split in ("valid", "test"):
        evaluator = Evaluator(
            held_out=pairs_of(data, [split]), mask=train, train_item_degree=item_degree, train_user_degree=user_degree
        )
        state = evaluator.run(PopularityRanker(item_degree, data.num_users))
        metrics = evaluator.result(state).metrics
        found |= {f"{split}/{name}": round(metrics[name], 4) for name in METRICS}
    return found


def _over(runs: list[dict[str, Any]], summary: Any) -> dict[str, float]:
    keys = [f"{split}/{name}" for split in ("valid", "test") for name in METRICS]
    return {key: round(summary([run[key] for run in runs]), 4) for key in keys}


if __name__ == "__main__":
    main()
