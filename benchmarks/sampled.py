"""Sampled against exact propagation: LightGCN with 3 layers on Gowalla after a few epochs.

    python benchmarks/sampled.py --data ../shared/data/gowalla --epochs 5

For every fan-out and sampler: Recall@20 beside the exact mode's, batches per second, input rows per batch. Evaluation
is exact in all of them.
"""

import argparse
from typing import Any

from common import prepared, print_json, run_config, work_folder

VARIANTS = {
    "exact": ["training.propagation.mode=full"],
    "neighbour [10, 10, 10]": ["training.propagation.mode=sampled", "training.propagation.fan_outs=[10,10,10]"],
    "labor [10, 10, 10]": [
        "training.propagation.mode=sampled",
        "training.propagation.fan_outs=[10,10,10]",
        "training.propagation.sampler=labor",
    ],
    "neighbour [5, 5, 5]": ["training.propagation.mode=sampled", "training.propagation.fan_outs=[5,5,5]"],
    "labor [5, 5, 5]": [
        "training.propagation.mode=sampled",
        "training.propagation.fan_outs=[5,5,5]",
        "training.propagation.sampler=labor",
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw MMRec folder or dataset folder")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--work", help="folder for prepared data and runs")
    arguments = parser.parse_args()
    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(None)
    work = work_folder(arguments.work)
    data = prepared(arguments.data, work)
    common = [
        f"training.epochs={arguments.epochs}",
        f"seed={arguments.seed}",
        f"evaluation.every={arguments.epochs}",
        "evaluation.monitor=null",
        "evaluation.patience=null",
        "evaluation.at=[20]",
        "training.order=uniform_users",
    ]
    print_json({name: _run(data, work, [*common, *keys]) for name, keys in VARIANTS.items()})


def _run(data: Any, work: Any, keys: list[str]) -> dict[str, float]:
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

    result = train(run_config("lightgcn", data, work, keys), listeners=(Watch(),))
    seconds = sum(epoch["train/seconds"] for epoch in epochs)
    return {
        "recall@20": round(result.metrics["test/recall@20"], 4),
        "ndcg@20": round(result.metrics["test/ndcg@20"], 4),
        "batches_per_second": round(steps[0] * len(epochs) / seconds, 2),
        "input_nodes_per_batch": round(epochs[-1]["train/input_nodes_per_step"]),
        "share_sampling": round(sum(epoch["seconds/sampling"] for epoch in epochs) / seconds, 3),
    }


if __name__ == "__main__":
    main()
