"""Sampled against exact propagation: LightGCN after some epochs, by sampler and fan-outs.

    python benchmarks/sampled.py --data DATA/gowalla --epochs 5
    python benchmarks/sampled.py --data DATA/tiktok --layers 2 --epochs 10 60 --order permutation \\
        --fan-outs 10 30,10 100,10 all,10 10,30

For every sampler and fan-outs (from the seed nodes outwards, the last repeated, `all` neighbours too): Recall@20 beside
the exact mode's, batches per second, input rows per batch. Evaluation is exact in all of them.
"""

import argparse
import math
from typing import Any

from common import prepared, print_json, run_config, work_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw MMRec folder or dataset folder")
    parser.add_argument("--epochs", type=int, nargs="+", default=[5], help="when to look; the last one ends")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--fan-outs", nargs="+", default=["10", "5"], metavar="FIRST[,NEXT…]")
    parser.add_argument("--samplers", nargs="+", default=["neighbour", "labor"], choices=["neighbour", "labor"])
    parser.add_argument("--order", default="uniform_users", choices=["uniform_users", "permutation"])
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--work", help="folder for prepared data and runs")
    arguments = parser.parse_args()
    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(None)
    work = work_folder(arguments.work)
    data = prepared(arguments.data, work)
    common = [
        f"training.epochs={arguments.epochs[-1]}",
        f"seed={arguments.seed}",
        f"evaluation.every={math.gcd(*arguments.epochs)}",
        "evaluation.monitor=null",
        "evaluation.patience=null",
        "evaluation.watch_test=true",
        "evaluation.slices=false",
        "evaluation.at=[20]",
        f"model.encoder.layers={arguments.layers}",
        f"training.order={arguments.order}",
    ]
    result = {}
    for name, keys in _variants(arguments).items():
        result[name] = _run(data, work, [*common, *keys], arguments.epochs)
        print(name, result[name], flush=True)
    print_json(result)


def _variants(arguments: argparse.Namespace) -> dict[str, list[str]]:
    variants = {"exact": ["training.propagation.mode=full"]}
    for sampler in arguments.samplers:
        for fan_outs in arguments.fan_outs:
            variants[f"{sampler} [{fan_outs}]"] = [
                "training.propagation.mode=sampled",
                f"training.propagation.fan_outs=[{fan_outs.replace('all', '-1')}]",
                f"training.propagation.sampler={sampler}",
            ]
    return variants


def _run(data: Any, work: Any, keys: list[str], at: list[int]) -> dict[str, Any]:
    from braidrec.training.driver import train
    from braidrec.training.events import EpochEnd, Event, Started

    epochs: list[dict[str, float]] = []
    steps = [0]

    class Watch:
        def handle(self, event: Event) -> None:
            if isinstance(event, Started):
                steps[0] = event.steps_per_epoch
            if isinstance(event, EpochEnd):
                epochs.append(dict(event.metrics))

    train(run_config("lightgcn", data, work, keys), listeners=(Watch(),))
    seconds = sum(epoch["train/seconds"] for epoch in epochs)
    return {
        **{
            f"{metric} after {epoch}": round(epochs[epoch - 1][f"test/{metric}"], 4)
            for epoch in at
            for metric in ("recall@20", "ndcg@20")
        },
        "batches_per_second": round(steps[0] * len(epochs) / seconds, 2),
        "input_nodes_per_batch": round(epochs[-1]["train/input_nodes_per_step"]),
        "share_sampling": round(sum(epoch["seconds/sampling"] for epoch in epochs) / seconds, 3),
    }


if __name__ == "__main__":
    main()
