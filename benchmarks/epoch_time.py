"""Seconds per training batch and epoch: this library against research-style code, in one run on one machine and data.

    python benchmarks/epoch_time.py --gowalla DATA/gowalla --tiktok DATA/tiktok

Gowalla with 3 layers and TikTok with 2, d = 64, batches of 2,048, exact fp32 propagation. Both take turns, each in a
process of its own, so that neither warms the other's caches and both see one machine; medians are compared. Research
code runs as users run it, without this library's allocator settings; `reference_tuned` gives it those too. Also: the
share of our batch outside the propagation kernels, and bf16 propagation.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from common import prepared, print_json, work_folder

LAYERS = {"gowalla": 3, "tiktok": 2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gowalla", help="raw or prepared folder")
    parser.add_argument("--tiktok", help="raw or prepared folder")
    parser.add_argument("--rounds", type=int, default=3, help="turns that each side gets")
    parser.add_argument("--batches", type=int, default=20, help="batches per turn")
    parser.add_argument("--work", help="folder for prepared data")
    parser.add_argument("--side", choices=["ours", "bf16", "reference"], help=argparse.SUPPRESS)
    parser.add_argument("--name", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(
            json.dumps(measure(arguments.side, arguments.name, getattr(arguments, arguments.name), arguments.batches))
        )
        return
    work = work_folder(arguments.work)
    result: dict[str, Any] = {}
    for name in LAYERS:
        if getattr(arguments, name):
            result[name] = compare(name, prepared(getattr(arguments, name), work).path, arguments)
    print_json(result)


def compare(name: str, data: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of all turns of every side."""
    from braidrec.training.environment import training_environment

    tuned = training_environment(len(os.sched_getaffinity(0)))
    plain = {"OMP_NUM_THREADS": tuned["OMP_NUM_THREADS"]}
    sides = {"ours": ("ours", tuned), "bf16": ("bf16", tuned), "reference": ("reference", plain)}
    sides["reference_tuned"] = ("reference", tuned)
    turns: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side, (code, environment) in sides.items():
            turns[side].append(_turn(code, name, data, arguments.batches, environment))
    medians = {side: statistics.median(s for turn in found for s in turn["seconds"]) for side, found in turns.items()}
    steps = turns["ours"][0]["steps_per_epoch"]
    ours = turns["ours"]
    return {
        "layers": LAYERS[name],
        "milliseconds_per_batch": {side: round(1000 * value, 1) for side, value in medians.items()},
        "seconds_per_epoch": {side: round(steps * value, 2) for side, value in medians.items()},
        "times_faster": round(medians["reference"] / medians["ours"], 2),
        "times_faster_than_tuned_reference": round(medians["reference_tuned"] / medians["ours"], 2),
        "share_outside_kernels": round(statistics.median(turn["outside"] for turn in ours), 3),
        "spread_of_ours": [
            round(1000 * value, 1) for value in _quartiles([s for turn in ours for s in turn["seconds"]])
        ],
    }


def measure(side: str, name: str, data: str, batches: int) -> dict[str, Any]:
    """One turn, in a process of its own."""
    import torch

    from braidrec.data.folder import DatasetFolder

    threads = len(os.sched_getaffinity(0))
    folder = DatasetFolder.open(data)
    if side == "reference":
        from reference_lightgcn import time_batches

        torch.set_num_threads(threads)
        users, items = folder.edges("train")
        sizes = (folder.num_users, folder.num_items)
        return {"seconds": time_batches(users, items, sizes, layers=LAYERS[name], batches=batches)}
    return _measure_ours(folder, LAYERS[name], batches, threads, "bf16" if side == "bf16" else "fp32")


def _measure_ours(folder: Any, layers: int, batches: int, threads: int, precision: str) -> dict[str, Any]:
    from step_time import KernelClock, loop_of, seconds_of_steps

    from braidrec.training.environment import use_threads

    use_threads(threads)
    keys = [f"model.encoder.layers={layers}", f"training.propagation.precision={precision}"]
    loop, clock = loop_of("lightgcn", folder, keys), KernelClock()
    seconds = seconds_of_steps(loop, batches, clock.reset)
    outside = 1 - clock.seconds / sum(seconds)
    return {"seconds": seconds, "outside": outside, "steps_per_epoch": loop.steps_per_epoch}


def _turn(side: str, name: str, data: str, batches: int, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--name", name, f"--{name}", data, "--batches", str(batches)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} on {name} failed:\n{done.stderr[-3000:]}")
    turn: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return turn


def _quartiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=4)


if __name__ == "__main__":
    main()
