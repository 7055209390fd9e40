"""What Ray Train costs: the same loop on the same data in this process and in one Ray Train worker.

    python benchmarks/ray_overhead.py --data ../shared/data/gowalla --epochs 3

One worker with all cores on either side, exact LightGCN; seconds of an epoch's training without evaluation, by the same
clock in the loop. The two take turns. The start of Ray and of its worker is printed apart: it is paid once a run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from common import prepared, print_json, run_config, work_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw MMRec folder or dataset folder")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--work", help="folder for prepared data and runs")
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = work_folder(arguments.work)
    data = prepared(arguments.data, work)
    if arguments.workers is not None:
        print(json.dumps(_measure(data, work, arguments.workers, arguments.epochs)))
        return
    turns: dict[int, list[dict[str, Any]]] = {0: [], 1: []}
    for _ in range(arguments.rounds):
        for workers in turns:
            turns[workers].append(_turn(workers, data.path, str(work), arguments.epochs))
    local, ray = (statistics.median(s for turn in turns[w] for s in turn["epochs"]) for w in (0, 1))
    print_json(
        {
            "seconds_per_epoch_local": round(local, 2),
            "seconds_per_epoch_ray": round(ray, 2),
            "overhead": round(ray / local - 1, 4),
            "seconds_to_first_step_ray": [round(turn["start"], 1) for turn in turns[1]],
            "all": {("ray" if w else "local"): [t["epochs"] for t in found] for w, found in turns.items()},
        }
    )


def _turn(workers: int, data: str, work: str, epochs: int) -> dict[str, Any]:
    from braidrec.training.environment import training_environment

    command = [sys.executable, __file__, "--data", data, "--work", work, "--epochs", str(epochs)]
    environment = {**os.environ, **training_environment(len(os.sched_getaffinity(0)))}
    done = subprocess.run(
        [*command, "--workers", str(workers)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"workers={workers} failed:\n{done.stderr[-3000:]}")
    turn: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return turn


def _measure(data: Any, work: Any, workers: int, epochs: int) -> dict[str, Any]:
    from braidrec.training.driver import train
    from braidrec.training.events import EpochEnd, Event, Started

    began = time.perf_counter()
    seconds: list[float] = []
    start = [0.0]

    class Watch:
        def handle(self, event: Event) -> None:
            if isinstance(event, Started):
                start[0] = time.perf_counter() - began
            if isinstance(event, EpochEnd):
                seconds.append(event.metrics["train/seconds"])

    keys = [f"training.epochs={epochs}", f"workers.num={workers}", f"workers.threads={len(os.sched_getaffinity(0))}"]
    keys += ["evaluation.monitor=null", "evaluation.patience=null", f"evaluation.every={epochs}", "evaluation.at=[20]"]
    keys += ["training.propagation.mode=full"]
    train(run_config("lightgcn", data, work, keys), listeners=(Watch(),))
    return {"epochs": seconds, "start": start[0]}


if __name__ == "__main__":
    main()
