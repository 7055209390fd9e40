"""The eight ways to fuse on one data set, all else being equal: timing × combination × weighting.

    python benchmarks/fusion_points.py --data DATA/lfm2k --work /tmp/fusion
    python benchmarks/fusion_points.py --data DATA/tiktok --work /tmp/fusion

LightGCN with 2 layers on the ID and all modalities of the data set as strands: fused early or late, element-wise (sum)
or side by side (with a linear map back to d), each strand counting alike or by attention. Also the ID alone, which has
to be beaten. Learning rate, regulariser, length and seeds are the same for all. Finished trainings are lines of a file
in --work and are not repeated; `--table docs/fusion_lfm2k.md` writes the table.
"""

import argparse
from itertools import product
from pathlib import Path
from typing import Any

from common import work_folder
from trainings import METRICS, Pieces, Training, mean_and_spread

COMBINATIONS = {
    "element-wise": ("model.fusion.combine=sum",),
    "concatenated": ("model.fusion.combine=concat", "model.fusion.map=linear"),
}
WEIGHTINGS = {"heuristic": ("model.fusion.weighting=none",), "attention": ("model.fusion.weighting=attention",)}
# Published vectors differ in scale by a thousand; one that is larger than the others would be all of the sum.
MODALITIES = ("model.modalities.use=['*']", "model.modalities.transform={standardise: true, l2_norm: true}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw MMRec folder or dataset folder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=30, help="at most")
    parser.add_argument("--every", type=int, default=3, help="epochs between validations")
    parser.add_argument("--patience", type=int, default=3, help="validations without a gain before stopping")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--regulariser", type=float, default=1e-3)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--threads", type=int, help="compute threads; without it all cores")
    parser.add_argument("--only-stored", action="store_true", help="train nothing: the table of what is finished")
    parser.add_argument("--table", help="Markdown file to write")
    parser.add_argument("--work", help="folder for prepared data and results")
    arguments = parser.parse_args()
    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(arguments.threads)
    pieces = Pieces(
        arguments.data,
        work_folder(arguments.work),
        "fusion_points",
        threads=arguments.threads,
        only_stored=arguments.only_stored,
    )
    shared = _shared(arguments)
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for seed, (point, settings) in product(arguments.seeds, _points().items()):  # a whole table after each seed
        run = pieces.result(Training(preset="lightgcn", settings=settings, shared=shared, seed=seed))
        if run is not None:
            found.setdefault(point, []).append(run)
    text = _page(pieces.name, found, arguments)
    if arguments.table:
        Path(arguments.table).write_text(text)
    print(text)


def _points() -> dict[tuple[str, str, str], tuple[str, ...]]:
    points: dict[tuple[str, str, str], tuple[str, ...]] = {("ID alone", "", ""): ()}
    for timing, combination, weighting in product(("early", "late"), COMBINATIONS, WEIGHTINGS):
        fusion = (f"model.fusion.timing={timing}", *COMBINATIONS[combination], *WEIGHTINGS[weighting])
        points[timing, combination, weighting] = (*MODALITIES, *fusion)
    return points


def _shared(arguments: argparse.Namespace) -> tuple[str, ...]:
    return (
        f"model.encoder.layers={arguments.layers}",
        f"objective.regulariser={arguments.regulariser}",
        f"training.epochs={arguments.epochs}",
        f"training.optimizer.learning_rate={arguments.learning_rate}",
        f"evaluation.every={arguments.every}",
        f"evaluation.patience={arguments.patience}",
        "evaluation.slices=false",
    )


def _page(name: str, found: dict[tuple[str, str, str], list[dict[str, Any]]], arguments: argparse.Namespace) -> str:
    options = {"--epochs": arguments.epochs, "--learning-rate": arguments.learning_rate}
    given = " ".join(f"{option} {value:g}" for option, value in options.items())
    lines = [
        f"# Ways to fuse on {name}",
        "",
        f"`python benchmarks/fusion_points.py --data DATA/{name} {given}`: LightGCN with {arguments.layers} layers on "
        f"the ID and all modalities, regulariser {arguments.regulariser:g}, at most {arguments.epochs} epochs, a "
        f"validation every {arguments.every}, stopped after {arguments.patience} without a gain. Test split, mean ± "
        "standard deviation over the seeds; seconds are of an epoch without validation, on a shared machine.",
        "",
        "| Timing | Combination | Weighting | R@10 | R@20 | N@10 | N@20 | Validation R@20 | Seeds | s/epoch |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for point, runs in found.items():
        values = [mean_and_spread(runs, f"test/{metric}") for metric in METRICS]
        values += [mean_and_spread(runs, "valid/recall@20"), str(len(runs))]
        seconds = min(run["seconds_per_epoch"] for run in runs)
        lines.append(f"| {' | '.join([*point, *values, f'{seconds:.2f}'])} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
