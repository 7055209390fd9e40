"""What a search saves, and what it costs beside the trainings themselves.

    python benchmarks/search.py --data DATA/lfm2k --work /tmp/search
    python benchmarks/search.py --data DATA/lfm2k --work /tmp/search --overhead

Without --overhead: the full grid of eight fusion points × two self-supervised settings × two learning rates is trained;
then TPE with ASHA searches the same points, and the epochs are counted that it trains until it has the grid's best
validation score. A training depends on its point alone, not on when it is begun, so the searches read the grid's curves
instead of training again, through the product's own suggester and scheduler: a search for each of --searches seeds.

With --overhead: --trials trials of about --seconds-each seconds on all cores; the wall time from the first trial's
beginning, times the trials at a time, against the seconds that the trainings spent in their epochs.

A sweep that was interrupted goes on when the same command is given again.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from common import prepared, print_json, work_folder

FUSION = {
    "model.fusion.timing": {"choice": ["early", "late"]},
    "model.fusion.combine": {"choice": ["sum", "concat"]},
    "model.fusion.weighting": {"choice": ["none", "attention"]},
    "model.fusion.map": {"choice": ["linear"], "when": {"model.fusion.combine": "concat"}},
}
CONTRAST = {"kind": "contrast", "first": {"kind": "edge_dropout"}, "second": {"kind": "edge_dropout"}, "weight": 0.01}
SPACE = {
    **FUSION,
    "model.self_supervision": {"choice": [{}, {"views": CONTRAST}]},
    "training.optimizer.learning_rate": {"choice": [0.001, 0.005]},
}
MODALITIES = {"use": ["*"], "transform": {"standardise": True, "l2_norm": True}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw MMRec folder or dataset folder")
    parser.add_argument("--epochs", type=int, default=60, help="at most")
    parser.add_argument("--patience", type=int, default=5, help="validations without a gain before stopping")
    parser.add_argument("--every", type=int, default=2, help="epochs between validations")
    parser.add_argument("--grace", type=int, default=4, help="epochs that ASHA gives to every trial")
    parser.add_argument("--reduction", type=int, default=3)
    parser.add_argument("--searches", type=int, default=20, help="seeds of TPE with ASHA")
    parser.add_argument("--overhead", action="store_true")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seconds-each", type=float, default=25.0)
    parser.add_argument("--work", help="folder for prepared data and sweeps")
    arguments = parser.parse_args()
    from braidrec.training.environment import restart_with_training_environment

    restart_with_training_environment(1)
    work = work_folder(arguments.work)
    data = prepared(arguments.data, work).path
    print_json(_overhead(arguments, work, data) if arguments.overhead else _savings(arguments, work, data))


def _savings(arguments: argparse.Namespace, work: Path, data: str) -> dict[str, Any]:
    """Epochs of the grid, and of searches until they have its best score."""
    training = {"epochs": arguments.epochs}
    evaluation = {"every": arguments.every, "patience": arguments.patience}
    run = _run(work, data, training, evaluation)
    run["model"] = {**run["model"], "modalities": MODALITIES}
    grid = _sweep("grid", {"run": run, "space": SPACE})
    curves = {_identity(record.overrides): record.curve for record in grid.trials}
    best = max(score for curve in curves.values() for _, score in curve)
    total = sum(record.epochs for record in grid.trials)
    needed = [_search(arguments, curves, best, seed) for seed in range(arguments.searches)]
    found = sorted(epochs for epochs, _ in needed)
    return {
        "points": len(curves),
        "best": best,
        "best point": grid.candidates[0].overrides,
        "grid epochs": total,
        "search epochs until the best, median": statistics.median(found),
        "search epochs, of all searches": found,
        "share of the grid's epochs, median": round(statistics.median(found) / total, 3),
        "share, worst": round(found[-1] / total, 3),
        "best score after so many epochs (first search)": needed[0][1],
    }


def _search(
    arguments: argparse.Namespace, curves: dict[str, Any], best: float, seed: int
) -> tuple[int, list[tuple[int, float]]]:
    """(epochs until the best score, the course as (epochs, best so far)) of TPE with ASHA on stored curves."""
    from ray.tune.schedulers import TrialScheduler

    from braidrec.config.load import validate
    from braidrec.config.sweep import ASHAConfig, SweepConfig, TPEConfig
    from braidrec.search.judges import PastTrial, make_judge
    from braidrec.search.records import TrialRecord
    from braidrec.search.space import Space
    from braidrec.search.suggest import Suggester

    dimensions = validate(SweepConfig, {"space": SPACE, "algorithm": {"kind": "grid"}}, "the benchmark").space
    suggester = Suggester(Space(dimensions), TPEConfig(startup=6), seed, "max")
    judge = make_judge(ASHAConfig(grace=arguments.grace, reduction=arguments.reduction), 1, arguments.epochs)
    assert judge is not None
    spent, course, highest = 0, [], float("-inf")
    for number in range(1, len(curves) + 1):
        point = suggester.suggest(number)
        assert point is not None
        trial = PastTrial(trial_id=str(number))
        record = TrialRecord(name=str(number), number=number, role="trial", overrides=point, seed=0)
        record.state = "finished"
        judge.on_trial_add(None, trial)
        for epoch, score in curves[_identity(point)]:
            spent += epoch - record.epochs
            record.saw(epoch, score)
            if score > highest:
                highest = score
                course.append((spent, score))
            if score >= best:
                return spent, course
            if judge.on_trial_result(None, trial, {"epoch": epoch, "score": score}) == TrialScheduler.STOP:
                record.state = "stopped_early"
                break
        suggester.tell(record)
    return sum(curve[-1][0] for curve in curves.values()), course  # it never found it: the whole grid's cost


def _overhead(arguments: argparse.Namespace, work: Path, data: str) -> dict[str, Any]:
    """Wall time of a sweep beyond its trainings, as a share of these."""
    once = {"every": 1, "patience": None}
    # As many side by side as later: alone, a trial is faster.
    first = _sweep("length", {"run": _run(work, data, {"epochs": 40}, once), "space": _rates(os.cpu_count() or 1)})
    an_epoch = statistics.fmean(_own_seconds(Path(first.folder), record) for record in first.trials) / 40
    epochs = max(10, round(arguments.seconds_each / an_epoch))
    name = f"overhead-{time.strftime('%H%M%S')}"
    sweep = _sweep(name, {"run": _run(work, data, {"epochs": epochs}, once), "space": _rates(arguments.trials)})
    own = [_own_seconds(Path(sweep.folder), record) for record in sweep.trials]
    wall = json.loads((Path(sweep.folder) / "seconds.json").read_text())["search"]
    at_once = _trials_at_a_time()
    return {
        "trials": len(own),
        "epochs each": epochs,
        "seconds of training each, median": round(statistics.median(own), 1),
        "wall seconds": round(wall, 1),
        "trials at a time": at_once,
        "seconds of a trial beside its training, median": round(
            statistics.median(record.seconds - seconds for record, seconds in zip(sweep.trials, own, strict=True)), 2
        ),
        "overhead": round(wall * at_once / sum(own) - 1, 3),
    }


def _own_seconds(folder: Path, record: Any) -> float:
    return sum(json.loads((folder / "runs" / record.name / "result.json").read_text())["seconds"].values())


def _rates(count: int) -> dict[str, Any]:
    return {"training.optimizer.learning_rate": {"choice": [0.001 + 0.0002 * number for number in range(count)]}}


def _trials_at_a_time() -> int:
    import ray

    return int(ray.cluster_resources()["CPU"])


def _run(work: Path, data: str, training: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    return {
        "storage": str(work / "sweeps"),
        "data": {"path": data},
        "model": {"encoder": {"kind": "lightgcn", "layers": 2}},
        "training": training,
        "evaluation": evaluation,
        "tracking": {"system_metrics": False},
    }


def _sweep(name: str, keys: dict[str, Any]) -> Any:
    """A grid without scheduler and finalists; it goes on where it was interrupted."""
    from braidrec.config.load import validate
    from braidrec.config.sweep import SweepConfig
    from braidrec.search.sweep import run_sweep

    fixed = {"algorithm": {"kind": "grid"}, "scheduler": {"kind": "none"}, "finalists": {"candidates": 0}}
    sweep = validate(SweepConfig, {"name": name, **fixed, **keys}, "the benchmark")
    begun = Path(keys["run"]["storage"]) / name / "sweep.json"
    return run_sweep(sweep, resume=str(begun.parent) if begun.is_file() else None)


def _identity(point: dict[str, Any]) -> str:
    return json.dumps(point, sort_keys=True)


if __name__ == "__main__":
    main()
