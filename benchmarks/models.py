"""All presets on one data set: six of them searched on the validation split, the others at their published settings.

    python benchmarks/models.py --data DATA/lfm2k --work /tmp/models
    python benchmarks/models.py --data DATA/tiktok --work /tmp/models --models lightgcn sgl

LightGCN, BM3, FREEDOM, MGCN, SGL and SimGCL over four points each: validation Recall@20 of the first seed decides, and
the chosen point is trained with all seeds. The other presets are trained once. Every finished training is a line of a
file in --work and is not repeated, so that the work can be done in pieces; `--table docs/models_lfm2k.md` writes the
table of what is there, and what is missing in it.

Seconds and memory of trainings that had to share the machine say little: `--measure` trains three epochs of each chosen
setting once more, one after the other, to be called when nothing else runs; their figures stand in the table then.

The published lengths (1,000 epochs at most, 20 validations of patience) take days on two cores. `--epochs`,
`--learning-rate` and the like cut them for all models alike; the table says so. Not here, but in
benchmarks/named.py: ADDVAE, which wants raw texts, VMCF, which wants ratings, and DVBPR, which wants images.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from common import work_folder
from trainings import (
    METRICS,
    WATCHED,
    Pieces,
    Search,
    add_search_arguments,
    amr_after,
    markdown,
    mean_and_spread,
    time_and_memory,
)

ID_ONLY = {"popularity", "item_knn", "bpr_mf", "lightgcn", "layergcn", "selfcf", "sgl", "simgcl"}
WITHOUT_TRAINING = ("popularity", "item_knn", "item_knn_cbf")
REGULARISERS = ("objective.regulariser=0.0001", "objective.regulariser=0.001")
KNOBS: dict[str, tuple[str, str]] = {
    "lightgcn": ("model.encoder.layers=2", "model.encoder.layers=3"),
    "sgl": ("model.self_supervision.sgl.weight=0.01", "model.self_supervision.sgl.weight=0.1"),
    "simgcl": ("model.self_supervision.simgcl.weight=0.01", "model.self_supervision.simgcl.weight=0.1"),
    "bm3": ("model.encoder.dropout=0.3", "model.encoder.dropout=0.5"),
    "freedom": ("model.encoder.prune_rate=0.5", "model.encoder.prune_rate=0.8"),
    "mgcn": ("model.encoder.contrast_weight=0.01", "model.encoder.contrast_weight=0.1"),
}
"""Of each model that is searched, two values of its own; with two regularisers they are four points."""
PUBLISHED = (
    "bpr_mf", "layergcn", "selfcf", "vbpr", "vbpr_mm", "amr", "acf", "mmgcf", "lattice", "mmgcn", "slmrec", "grcn",
    "dualgnn", "dragon",
)  # fmt: skip
NAMES = {
    "popularity": "popularity",
    "item_knn": "item kNN",
    "item_knn_cbf": "item kNN by content",
    "bpr_mf": "BPR-MF",
    "lightgcn": "LightGCN",
    "layergcn": "LayerGCN",
    "selfcf": "SelfCF",
    "sgl": "SGL",
    "simgcl": "SimGCL",
    "vbpr": "VBPR",
    "vbpr_mm": "VBPR (MMRec's form)",
    "amr": "AMR",
    "acf": "ACF",
    "mmgcf": "MMGCF",
    "mmgcn": "MMGCN",
    "grcn": "GRCN",
    "dualgnn": "DualGNN",
    "dragon": "DRAGON",
    "slmrec": "SLMRec",
    "lattice": "LATTICE",
    "bm3": "BM3",
    "freedom": "FREEDOM",
    "mgcn": "MGCN",
}
PUBLISHED_TIKTOK = {
    "lightgcn": ".0581 / .0916 / .0322 / .0406",
    "sgl": ".0643 / .0972 / .0328 / .0411",
    "mmgcn": ".0407 / .0870 / – / –",
    "grcn": ".0361 / .0624 / – / –",
    "lattice": ".0561 / .0939 / .0338 / .0433",
    "bm3": ".0703 / .1064 / .0363 / .0454",
}
"""Recall@10, Recall@20, NDCG@10 and NDCG@20 that other laboratories report on what is the validation split here, with a
text modality that is absent here, of models that were selected on what is the test split here."""


def main() -> None:
    arguments = _arguments()
    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(arguments.threads)
    work = work_folder(arguments.work)
    pieces = Pieces(
        arguments.data,
        work,
        "models",
        threads=arguments.threads,
        only_stored=arguments.only_stored or arguments.measure,
    )
    shared = _shared(arguments)
    found = {name: runs for name in arguments.models if (runs := _runs(pieces, name, shared, arguments))}
    pieces.only_stored = not arguments.measure
    found = {
        name: runs if name in WITHOUT_TRAINING else _search(name, shared, arguments).measured(pieces, runs)
        for name, runs in found.items()
    }
    missing = [NAMES[name] for name in arguments.models if name not in found]
    text = _page(pieces.name, found, missing, arguments)
    if arguments.table:
        Path(arguments.table).write_text(text)
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw MMRec folder or dataset folder")
    parser.add_argument("--models", nargs="+", default=list(NAMES), choices=list(NAMES), metavar="MODEL")
    parser.add_argument("--learning-rate", type=float, help="for all models; without it each preset's own")
    parser.add_argument("--table", help="Markdown file to write")
    add_search_arguments(parser, epochs=1000, every=1, patience=20)
    return parser.parse_args()


def _shared(arguments: argparse.Namespace) -> tuple[str, ...]:
    shared = [
        f"training.epochs={arguments.epochs}",
        f"evaluation.every={arguments.every}",
        f"evaluation.patience={arguments.patience}",
        "evaluation.slices=false",
    ]
    if arguments.learning_rate is not None:
        shared.append(f"training.optimizer.learning_rate={arguments.learning_rate}")
    return tuple(shared)


def _runs(pieces: Pieces, name: str, shared: tuple[str, ...], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Results of the chosen setting, which each of them names as `settings`; []: none."""
    if name in WITHOUT_TRAINING:
        stored = pieces.piece({"without_training": name}, lambda: _untrained(pieces, name))
        return [stored] if stored else []

    return _search(name, shared, arguments).runs(pieces)


def _search(name: str, shared: tuple[str, ...], arguments: argparse.Namespace) -> Search:
    """Four points, or the published settings with one seed."""
    if name in PUBLISHED:
        always = (amr_after(arguments.epochs),) if name == "amr" else ()
        return Search(preset=name, points=((),), always=always, shared=shared, seeds=(arguments.seeds[0],))
    points = tuple((knob, regulariser) for knob in KNOBS[name] for regulariser in REGULARISERS)
    return Search(preset=name, points=points, tried=arguments.points, shared=shared, seeds=tuple(arguments.seeds))


def _untrained(pieces: Pieces, name: str) -> dict[str, Any]:
    from common import prepared
    from simple_baselines import NEIGHBOURS, SHRINKAGE, Baselines

    found = Baselines(prepared(pieces.raw, pieces.work), pieces.work, NEIGHBOURS, SHRINKAGE).result(name)
    chosen = ", ".join(f"{key} {value:g}" for key, value in found.pop("chosen", {}).items())
    return {**found, "settings": chosen}


def _page(name: str, found: dict[str, list[dict[str, Any]]], missing: list[str], arguments: argparse.Namespace) -> str:
    """The tables in Markdown."""
    parts = [f"# All models on {name}", _preamble(arguments), _table(found, "test"), _verdict(found)]
    if name == "tiktok":
        parts += [_TIKTOK, _table(found, "valid", published=PUBLISHED_TIKTOK)]
    if missing:
        parts.append(f"Not finished, and so not in the table: {', '.join(missing)}.")
    return "\n\n".join(parts) + "\n"


_TIKTOK = """## Validation split, beside published figures

Other laboratories select their models on what is the test split here and report what is the validation split here, with
a text modality that is absent here. Our figures in this table are of the split that selected them."""


def _preamble(arguments: argparse.Namespace) -> str:
    given = {
        "--epochs": arguments.epochs,
        "--every": arguments.every,
        "--patience": arguments.patience,
        "--learning-rate": arguments.learning_rate,
    }
    options = " ".join(f"{option} {value:g}" for option, value in given.items() if value is not None)
    rate = "each preset's own learning rate"
    if arguments.learning_rate is not None:
        rate = f"a learning rate of {arguments.learning_rate:g} for all models (published: mostly .001)"
    return (
        f"`python benchmarks/models.py --data DATA/{Path(arguments.data).resolve().name} {options}`: full ranking, "
        "train items masked; all modalities of the data set. The six models with a setting were searched over four "
        f"points, by validation Recall@20 of one seed; the chosen point has {len(arguments.seeds)} seeds (mean ± "
        "standard deviation), unless the table says that fewer are finished. The others have their published settings "
        "and one seed. **At most "
        f"{arguments.epochs} epochs**, a validation every {arguments.every}, stopped after {arguments.patience} "
        f"without a gain, {rate}: where 1,000 epochs are published, slow learners are cut short. Seconds are of one "
        "epoch without validation, measured alone (`--measure`) but for those with a ~, whose trainings shared the "
        "machine with others; memory is the process's peak, libraries (about 400 MiB) included."
    )


def _table(found: dict[str, list[dict[str, Any]]], split: str, published: dict[str, str] | None = None) -> str:
    head = ["Model", "Modalities", "Setting", "Recall@10", "Recall@20", "NDCG@10", "NDCG@20"]
    head += ["Published"] if published is not None else ["Validation R@20", "Best epoch", "s/epoch", "Peak MiB"]
    lines = []
    for name, runs in found.items():
        values = [mean_and_spread(runs, f"{split}/{metric}") for metric in METRICS]
        line = [NAMES[name], "" if name in ID_ONLY else "yes", runs[0]["settings"], *values]
        if published is not None:
            line.append(published.get(name, ""))
        elif "best_epoch" in runs[0]:
            line.append(mean_and_spread(runs, WATCHED))
            line.append(", ".join(str(run["best_epoch"]) for run in runs))
            line += time_and_memory(runs)
        else:
            line += [mean_and_spread(runs, WATCHED), "", "", ""]
        lines.append(line)
    return markdown(head, lines)


def _verdict(found: dict[str, list[dict[str, Any]]]) -> str:
    """Whether modalities were worth it: the best model of each kind by validation, compared on the test split."""

    def mean(name: str, split: str) -> float:
        runs = found[name]
        total: float = sum(run[f"{split}/recall@20"] for run in runs)
        return total / len(runs)

    kinds = [[name for name in found if (name in ID_ONLY) == is_id] for is_id in (True, False)]
    if not all(kinds):
        return "One kind of models is missing: nothing to compare."
    alone, fused = (max(kind, key=lambda name: mean(name, "valid")) for kind in kinds)
    values = mean(fused, "test"), mean(alone, "test")
    beats = "beats" if values[0] > values[1] else "does **not** beat"
    shown = " against ".join(f"{value:.4f}".lstrip("0") for value in values)
    unfinished = any(
        " points)" in found[name][0]["settings"] or " seeds)" in found[name][0]["settings"] for name in found
    )
    doubt = " Searches are unfinished, so that this is a first look and no finding." if unfinished else ""
    return (
        f"The best model with modalities by validation, {NAMES[fused]}, {beats} the best without, {NAMES[alone]}: test "
        f"Recall@20 {shown}.{doubt}"
    )


if __name__ == "__main__":
    sys.exit(main())
