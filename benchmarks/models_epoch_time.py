"""Seconds per training batch of FREEDOM, BM3 and MGCN against research-style code, and what fusing late costs.

    python benchmarks/models_epoch_time.py --data DATA/tiktok --strands DATA/lfm2k

Batches of 2,048, d = 64, exact fp32 propagation, the presets' settings. Both sides take turns, each in a process of its
own; medians are compared. Research code (benchmarks/reference_systems.py) runs as users run it, without this library's
allocator settings; `reference_tuned` gives it those too; `reference_published` trains the features, as the published
programs of the three systems do.

With `--strands`: LightGCN on the ID and on one, two, … modalities of that data set, fused early and late. Seconds
inside the propagation's kernel should not depend on their number where fusion is early, and at most be proportional to
the number of strands where it is late. Projectors have a hidden layer, so that nothing is propagated ahead.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import prepared, print_json, work_folder

MODELS = ("freedom", "bm3", "mgcn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="raw or prepared folder for the comparison with research-style code")
    parser.add_argument("--strands", help="raw or prepared folder for early against late fusion")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS, metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each side gets")
    parser.add_argument("--batches", type=int, default=20, help="batches per turn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", help="folder for prepared data")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        print(json.dumps(_measure(json.loads(arguments.turn))))
        return
    if not (arguments.data or arguments.strands):
        parser.error("nothing to measure: give --data, --strands or both")
    work, result = work_folder(arguments.work), {"threads": arguments.threads}
    if arguments.data:
        folder = prepared(arguments.data, work)
        result[folder.description.name] = {name: _compare(name, folder.path, arguments) for name in arguments.models}
    if arguments.strands:
        result["strands"] = _strands(prepared(arguments.strands, work), arguments)
    print_json(result)


def _compare(name: str, data: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of all turns of every side."""
    tuned, plain = _environments(arguments.threads)
    sides = {
        "ours": ("ours", tuned),
        "reference": ("reference", plain),
        "reference_tuned": ("reference", tuned),
        "reference_published": ("reference", plain),
    }
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side, (code, environment) in sides.items():
            turn = {"side": code, "name": name, "data": data, "settings": [], "published": side.endswith("published")}
            turns[side].append(_turn(turn, arguments, environment))
    medians = {side: statistics.median(s for turn in found for s in turn["seconds"]) for side, found in turns.items()}
    return {
        "milliseconds_per_batch": {side: round(1000 * value, 1) for side, value in medians.items()},
        "times_faster": round(medians["reference"] / medians["ours"], 2),
        "times_faster_than_tuned_reference": round(medians["reference_tuned"] / medians["ours"], 2),
        "times_faster_than_published": round(medians["reference_published"] / medians["ours"], 2),
        "share_outside_kernels": round(statistics.median(turn["outside"] for turn in turns["ours"]), 3),
    }


def _strands(folder: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """By timing and number of modalities: milliseconds per batch, and those of them inside the kernel."""
    names = sorted(folder.description.modalities)
    tuned, _ = _environments(arguments.threads)
    found: dict[str, Any] = {}
    for timing in ("early", "late"):
        for number in range(1, len(names) + 1):
            settings = [
                f"model.fusion.timing={timing}",
                f"model.modalities.use=[{','.join(names[:number])}]",
                "model.modalities.projector.depth=2",
            ]
            turn = {"side": "ours", "name": "lightgcn", "data": folder.path, "settings": settings}
            turns = [_turn(turn, arguments, tuned) for _ in range(arguments.rounds)]
            seconds = statistics.median(s for done in turns for s in done["seconds"])
            inside = statistics.median(done["kernel_seconds"] for done in turns)
            found[f"{timing}, {number} of {len(names)} modalities"] = {
                "milliseconds_per_batch": round(1000 * seconds, 1),
                "inside_kernels": round(1000 * inside, 2),
            }
    return found


def _environments(threads: int) -> tuple[dict[str, str], dict[str, str]]:
    from braidrec.training.environment import training_environment

    return training_environment(threads), {"OMP_NUM_THREADS": str(threads)}


def _turn(turn: dict[str, Any], arguments: argparse.Namespace, environment: dict[str, str]) -> dict[str, Any]:
    told = {
        **turn,
        "cache": str(work_folder(arguments.work) / "cache"),
        "batches": arguments.batches,
        "threads": arguments.threads,
    }
    command = [sys.executable, __file__, "--turn", json.dumps(told)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{turn['side']}, {turn['name']} on {turn['data']} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(turn: dict[str, Any]) -> dict[str, Any]:
    """One turn, in a process of its own."""
    from braidrec.data.folder import DatasetFolder

    folder = DatasetFolder.open(turn["data"])
    if turn["side"] == "reference":
        return {"seconds": _reference(folder, turn)}
    from step_time import KernelClock, loop_of, seconds_of_steps

    from braidrec.training.environment import use_threads

    use_threads(turn["threads"])
    loop, clock = loop_of(turn["name"], folder, turn["settings"]), KernelClock()
    seconds = seconds_of_steps(loop, turn["batches"], clock.reset)
    return {
        "seconds": seconds,
        "outside": 1 - clock.seconds / sum(seconds),
        "kernel_seconds": clock.seconds / len(seconds),
    }


def _reference(folder: Any, turn: dict[str, Any]) -> list[float]:
    import numpy as np
    import torch
    from reference_systems import time_batches

    from braidrec.features.reading import load_feature_table

    torch.set_num_threads(turn["threads"])
    tables = [
        load_feature_table(folder, name, cache=Path(turn["cache"])) for name in sorted(folder.description.modalities)
    ]
    return time_batches(
        turn["name"],
        folder.edges("train"),
        (folder.num_users, folder.num_items),
        [np.array(table.values, dtype=np.float32) for table in tables],
        batches=turn["batches"],
        trained_features=turn["published"],
    )


if __name__ == "__main__":
    main()
