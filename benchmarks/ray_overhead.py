"""What Ray Train costs: the same loop on the same data in this process and in one Ray Train worker.

    python benchmarks/ray_overhead.py --data DATA/gowalla --epochs 6

One worker with all cores (or `--threads`) on either side, exact LightGCN; seconds of an epoch's training without
evaluation, by the same clock in the loop. Both trainings run at once and take turns, an epoch each, the other one
stopped with all its processes meanwhile: a machine that becomes slower for a minute is slower for both. The first epoch
of each does not count. The start of Ray and of its worker is printed apart: it is paid once a run.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from common import prepared, print_json, run_config, work_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="raw MMRec folder or dataset folder")
    parser.add_argument("--epochs", type=int, default=6, help="that count, beside the first")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of either side")
    parser.add_argument("--work", help="folder for prepared data and runs")
    parser.add_argument("--workers", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    work = work_folder(arguments.work)
    data = prepared(arguments.data, work)
    if arguments.workers is not None:
        _train(data, work, arguments.workers, arguments.threads, arguments.epochs + 2)  # never gets to the last one
        return
    options = ["--data", data.path, "--work", str(work)]
    options += ["--epochs", str(arguments.epochs), "--threads", str(arguments.threads)]
    players = {name: Player(workers, arguments.threads, options) for name, workers in SIDES.items()}
    try:
        for player in players.values():
            player.first_epoch()
        pairs = [{name: player.epoch() for name, player in players.items()} for _ in range(arguments.epochs)]
    finally:
        for player in players.values():
            player.end()
    ratios = [pair["ray"] / pair["local"] for pair in pairs]
    print_json(
        {
            "seconds_per_epoch_local": round(statistics.median(pair["local"] for pair in pairs), 2),
            "seconds_per_epoch_ray": round(statistics.median(pair["ray"] for pair in pairs), 2),
            "overhead": round(statistics.median(ratios) - 1, 4),
            "overhead_of_each_pair": [round(ratio - 1, 4) for ratio in ratios],
            "seconds_to_first_step_ray": round(players["ray"].start_seconds, 1),
        }
    )


SIDES = {"local": 0, "ray": 1}


class Player:
    """A training in a process of its own that waits at the end of each epoch, stopped with all its processes."""

    def __init__(self, workers: int, threads: int, options: list[str]) -> None:
        self._command = [sys.executable, __file__, *options, "--workers", str(workers)]
        self._threads = threads
        self._log = Path(options[options.index("--work") + 1]) / f"ray_overhead_{workers}.log"
        self._process: subprocess.Popen[str] | None = None
        self.start_seconds = 0.0

    def first_epoch(self) -> None:
        from braidrec.training.environment import training_environment

        environment = {**os.environ, **training_environment(self._threads)}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                self._command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.start_seconds = self._told()["start"]
        self._told()
        self._signal(signal.SIGSTOP)

    def epoch(self) -> float:
        """Seconds of the next one."""
        self._signal(signal.SIGCONT)
        assert self._process is not None and self._process.stdin is not None
        print("go", file=self._process.stdin, flush=True)
        seconds: float = self._told()["seconds"]
        self._signal(signal.SIGSTOP)
        return seconds

    def end(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._signal(signal.SIGCONT)
        self._process.terminate()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # another thread may have got the signal, and the main one still waits for this
            print("go", file=self._process.stdin, flush=True)
        self._process.wait()

    def _told(self) -> dict[str, Any]:
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                told: dict[str, Any] = json.loads(line)
                return told
        sys.exit(f"{' '.join(self._command)} ended with status {self._process.wait()}: {self._log}")

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        tree = psutil.Process(self._process.pid)
        for process in [tree, *tree.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _train(data: Any, work: Any, workers: int, threads: int, epochs: int) -> None:
    from braidrec.training.driver import train
    from braidrec.training.events import EpochEnd, Event, Started

    began = time.perf_counter()

    class Watch:
        def handle(self, event: Event) -> None:
            if isinstance(event, Started):
                print(json.dumps({"start": time.perf_counter() - began}), flush=True)
            if isinstance(event, EpochEnd):
                print(json.dumps({"seconds": event.metrics["train/seconds"]}), flush=True)
                sys.stdin.readline()

    keys = [f"training.epochs={epochs}", f"workers.num={workers}", f"workers.threads={threads}"]
    keys += ["evaluation.monitor=null", "evaluation.patience=null", f"evaluation.every={epochs}", "evaluation.at=[20]"]
    keys += ["training.propagation.mode=full"]
    train(run_config("lightgcn", data, work, keys), listeners=(Watch(),))


if __name__ == "__main__":
    main()
