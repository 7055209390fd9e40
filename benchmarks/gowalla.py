"""LightGCN on Gowalla by the published protocol: 3 layers, official sampler, exact propagation, no validation set.

    python benchmarks/gowalla.py --data DATA/gowalla --epochs 5

Prints Recall@20 and NDCG@20 of the test split every `--every` epochs and the seconds per epoch. Published (He et al.,
SIGIR 2020, authors' code, seed 2020): epoch 5 Recall@20 .10711, NDCG@20 .08941; epoch 1000 .1824 / .1547.
`--set` changes any key, such as training.propagation.mode=sampled. With `--work DIR --resume NAME` a run goes on.
"""

import argparse

from common import prepared, print_json, run_config, work_folder

PUBLISHED = {5: {"recall@20": 0.10711, "ndcg@20": 0.08941}, 1000: {"recall@20": 0.1824, "ndcg@20": 0.1547}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw MMRec folder or dataset folder")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--every", type=int, default=1, help="epochs between two tests")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--work", help="folder for prepared data and runs")
    parser.add_argument("--resume", metavar="NAME", help="continue a run in --work")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="a.b=c")
    arguments = parser.parse_args()

    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(None)
    from braidrec.training.driver import train
    from braidrec.training.events import EpochEnd, Event

    curve: list[dict[str, float]] = []

    class Curve:
        def handle(self, event: Event) -> None:
            if isinstance(event, EpochEnd):
                metrics = event.metrics
                row = {"epoch": event.epoch, "loss": metrics["train/loss"], "seconds": metrics["train/seconds"]}
                row |= {k: metrics[f"test/{k}"] for k in ("recall@20", "ndcg@20") if f"test/{k}" in metrics}
                row["input_nodes_per_step"] = metrics["train/input_nodes_per_step"]
                row |= {k: v for k, v in metrics.items() if k.startswith("seconds/")}
                curve.append(row)

    work = work_folder(arguments.work)
    data = prepared(arguments.data, work)
    config = run_config(
        "lightgcn",
        data,
        work,
        [
            f"training.epochs={arguments.epochs}",
            f"seed={arguments.seed}",
            f"evaluation.every={arguments.every}",
            "evaluation.monitor=null",
            "evaluation.patience=null",
            "evaluation.watch_test=true",
            "evaluation.at=[20]",
            "training.order=uniform_users",
            "training.propagation.mode=full",
            *arguments.overrides,
        ],
    )
    result = train(config, resume=arguments.resume, listeners=(Curve(),))
    seconds = sorted(row["seconds"] for row in curve) or [float("nan")]
    print_json(
        {
            "recall@20": result.metrics["test/recall@20"],
            "ndcg@20": result.metrics["test/ndcg@20"],
            "epochs": result.epochs_run,
            "median_seconds_per_epoch": seconds[len(seconds) // 2],
            "published": PUBLISHED,
            "run": result.folder,
            "curve": curve,
        }
    )


if __name__ == "__main__":
    main()
