"""What a fused model is worth where a modality is missing: Recall@20 by policy and by share of items that lose it.

    python benchmarks/missing_modality.py --data DATA/lfm2k --modality text --epochs 30

For each policy one LightGCN is trained, its items' ID and modalities summed before propagation. Then, without any
further training, the share of the items that have the modality is cut at evaluation; the items of a smaller share are
among those of a larger one, and are the same for all policies. With `--dropout 0.2` items lose modalities while
training, too, which is what teaches a token its vector where the data set lacks nothing. With `--only` the model has
no other strand than this modality (no ID, no other modality), so that nothing can stand in for it.
"""

import argparse
from pathlib import Path
from typing import Any

from common import prepared, print_json, run_config, work_folder

POLICIES = ("token", "zeros", "mask", "mean", "neighbours", "propagation")
SHARES = (0.0, 0.25, 0.5, 0.75)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw MMRec folder or dataset folder")
    parser.add_argument("--modality", default="text", help="which one is taken away")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES), choices=POLICIES, metavar="POLICY")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--dropout", type=float, default=0.0, help="share of modalities lost while training")
    parser.add_argument("--only", action="store_true", help="the model looks at nothing but this modality")
    parser.add_argument("--seed", type=int, default=2020)
    parser.add_argument("--work", help="folder for prepared data and runs")
    arguments = parser.parse_args()
    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(None)
    work = work_folder(arguments.work)
    data = prepared(arguments.data, work)
    results = {policy: _recalls(data, work, policy, arguments) for policy in arguments.policies}
    print(_table(arguments.modality, results), flush=True)
    print_json({"modality": arguments.modality, "dropout": arguments.dropout, "only": arguments.only, **results})


def _recalls(data: Any, work: Path, policy: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Recall@20 of the test split by the share that is missing."""
    import braidrec
    from braidrec.training.driver import train

    used = f"[{arguments.modality}]" if arguments.only else "['*']"
    keys = [
        f"training.epochs={arguments.epochs}",
        f"seed={arguments.seed}",
        f"evaluation.every={arguments.epochs}",
        "evaluation.monitor=null",
        "evaluation.patience=null",
        "evaluation.at=[20]",
        f"training.optimizer.learning_rate={arguments.learning_rate}",
        # Published vectors differ in scale by a thousand; one that is larger than the others would be all of the sum.
        "model.modalities.transform={standardise: true, l2_norm: true}",
        f"model.modalities.use={used}",
        f"model.modalities.missing={policy}",
        f"model.modalities.dropout={arguments.dropout}",
        f"model.fusion.use_id={str(not arguments.only).lower()}",
    ]
    run = train(run_config("lightgcn", data, work, keys)).folder
    recalls = {}
    for share in SHARES:
        done = braidrec.evaluate(run, at=[20], slices=False, drop_modality={arguments.modality: share})
        recalls[f"{share:.0%}"] = round(done.result.metrics["recall@20"], 4)
    return recalls


def _table(modality: str, results: dict[str, dict[str, float]]) -> str:
    head = f"{modality + ' removed':16}" + "".join(f"{share:>8.0%}" for share in SHARES)
    rows = [
        f"{policy:16}" + "".join(f"{value:8.4f}" for value in recalls.values()) for policy, recalls in results.items()
    ]
    return "\n".join(["Recall@20", head, *rows])


if __name__ == "__main__":
    main()
