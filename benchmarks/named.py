"""The systems with a training of their own, each beside what it is an answer to.

    python benchmarks/named.py --data DATA --work /tmp/named
    python benchmarks/named.py --data DATA --work /tmp/named --only lfm2k --systems amr acf

`--data` is the folder that holds the raw folders lfm2k and ml100k-posters. Three parts:

lfm2k: AMR, ACF, ADDVAE with the artists' raw tags, DualGNN, DRAGON and SelfCF beside LightGCN and VBPR.
posters: DVBPR on posters beside VBPR on vectors that were extracted from them, for warm and for cold movies.
ratings: squared errors of VMCF on ratings beside plain matrix factorisation and the mean.

Every system is searched over four points, by validation and with one seed; the chosen point is
trained with all seeds. Every finished training is a line of a file in --work and is not repeated, so that the work can
be done in pieces; `--only-stored` prints the tables of what is there. Seconds and memory of trainings that had to share
the machine say little: `--measure` trains three epochs of each chosen setting once more, to be called when nothing else
runs, and the tables have their figures then. `--epochs`, `--every` and `--patience` are of lfm2k and posters;
ratings have their own.
"""

import argparse
from pathlib import Path
from typing import Any

from common import prepared, work_folder
from named_movies import POSTERS, RATINGS, poster_tables, rating_table
from trainings import (
    WATCHED,
    Pieces,
    Search,
    add_search_arguments,
    amr_after,
    markdown,
    mean_and_spread,
    time_and_memory,
)

PARTS = ("lfm2k", "posters", "ratings")
LENGTH_ONE = "model.modalities.transform.l2_norm=true"
RATES = ("training.optimizer.learning_rate=0.01", "training.optimizer.learning_rate=0.003")
WEAK, STRONG = "objective.regulariser=0.0001", "objective.regulariser=0.001"
VERY_STRONG = "objective.regulariser=0.01"
LFM2K: dict[str, tuple[str, tuple[str, ...], tuple[str, str]]] = {
    "lightgcn": ("LightGCN", (), (WEAK, STRONG)),
    "vbpr": ("VBPR", ("model.dim=64", "model.encoder.content_dim=64", LENGTH_ONE), (STRONG, VERY_STRONG)),
    "amr": ("AMR", (), (STRONG, VERY_STRONG)),
    "selfcf": ("SelfCF", (), ("model.encoder.rate=0.2", "model.encoder.rate=0.5")),
    "dualgnn": ("DualGNN", (), (WEAK, STRONG)),
    "dragon": ("DRAGON", (), (WEAK, STRONG)),
    "acf": ("ACF", (), (WEAK, STRONG)),
    "addvae": ("ADDVAE", (), ("training.batch_size=128", "training.batch_size=512")),
}
"""Name, what is changed in the preset for all its trainings, and two values of a setting of its own; with two learning
rates they are four points."""


def main() -> None:
    arguments = _arguments()
    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(arguments.threads)
    work, data = work_folder(arguments.work), Path(arguments.data).resolve()
    if "lfm2k" in arguments.only:
        print(_lfm2k(data / "lfm2k", work, arguments), flush=True)
    if "posters" in arguments.only:
        print(poster_tables(data / "ml100k-posters", work, arguments), flush=True)
    if "ratings" in arguments.only:
        print(rating_table(data / "ml100k-posters", work, arguments), flush=True)


def _arguments() -> argparse.Namespace:
    known = [*LFM2K, *POSTERS, *RATINGS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data",
        required=True,
        help="folder with the raw folders lfm2k and ml100k-posters",
    )
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART")
    parser.add_argument("--systems", nargs="+", default=list(dict.fromkeys(known)), choices=known, metavar="SYSTEM")
    add_search_arguments(parser, epochs=40, every=4, patience=3)
    return parser.parse_args()


def _lfm2k(raw: Path, work: Path, arguments: argparse.Namespace) -> str:
    tags = f"items={{paths: [{raw}/item_text.tsv], id_column: itemID, text: [text]}}"
    folder = prepared(str(raw), work, "-tags", (tags,))
    pieces = Pieces(folder.path, work, "named", threads=arguments.threads, data=folder.digest)
    lines = []
    for system, (name, always, own) in LFM2K.items():
        if system in arguments.systems:
            search = _search(system, always, own, arguments)
            if runs := search.reported(pieces, only_stored=arguments.only_stored, measure=arguments.measure):
                lines.append(_line(name, runs))
                print(" | ".join(lines[-1]), flush=True)
    head = ["lfm2k", "Setting", "Recall@20", "NDCG@20", "Validation R@20", "Best epoch", "s/epoch", "Peak MiB"]
    return markdown(head, lines)


def _search(system: str, always: tuple[str, ...], own: tuple[str, str], arguments: argparse.Namespace) -> Search:
    if system == "amr":
        always = (*always, amr_after(arguments.epochs))
    return Search(
        preset=system,
        points=tuple((rate, value) for rate in RATES for value in own),
        shared=(
            f"training.epochs={arguments.epochs}",
            f"evaluation.every={arguments.every}",
            f"evaluation.patience={arguments.patience}",
            "evaluation.slices=false",
        ),
        always=always,
        tried=arguments.points,
        seeds=tuple(arguments.seeds),
    )


def _line(name: str, runs: list[dict[str, Any]]) -> list[str]:
    values = [mean_and_spread(runs, key) for key in ("test/recall@20", "test/ndcg@20", WATCHED)]
    best = ", ".join(str(run["best_epoch"]) for run in runs)
    return [name, runs[0]["settings"], *values, best, *time_and_memory(runs)]


if __name__ == "__main__":
    main()
