"""LightGCN on a generated power-law graph of any size: building it, then training steps, and what they cost.

    python benchmarks/scale.py --users 6000000 --items 4000000 --interactions 100000000 --workers 2 --work /scratch
    python benchmarks/scale.py --users 600000 --items 400000 --interactions 10000000 --rows plain labor best --work …
    python benchmarks/scale.py … --workers 1 --rows plain allocator

The graph is written once under --work as a dataset folder and used again. Two layers, dim 64, 2,048 interactions a
worker and step, row-wise Adagrad, tables dealt out over the workers. Every row is a training of its own in fresh
processes; what it changes:

    plain        fan-outs [10, 10], one uniform negative an interaction
    10,5  5,5    smaller fan-outs
    labor        neighbours drawn by LABOR
    bf16         rows and gradients travel as bfloat16 between workers, also on one machine, where they need not travel
    bf16-hops    the hops compute in it too
    in-batch     the other items of the batch are the negatives (softmax)
    fewest-rows  [5, 5], LABOR and in-batch together, which move least
    best         [5, 5]; workers on one machine read each other's rows, so that no number format helps
    sent         rows and gradients are sent, as between machines, instead of left in memory that workers share
    replicated   every worker holds all rows
    allocator    plain with the machine's own memory allocation
    tenth        plain on a graph of a tenth of the size
"""

import argparse
import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import print_json, work_folder

SAMPLED = "training.propagation"
FAN_OUTS = {
    "10,10": f"{SAMPLED}.fan_outs=[10,10]",
    "10,5": f"{SAMPLED}.fan_outs=[10,5]",
    "5,5": f"{SAMPLED}.fan_outs=[5,5]",
}
LABOR = [f"{SAMPLED}.sampler=labor"]
BF16 = ["training.wire=bf16"]
IN_BATCH = ["objective.loss.kind=in_batch_softmax"]
ROWS: dict[str, list[str]] = {
    "plain": [],
    "10,5": [FAN_OUTS["10,5"]],
    "5,5": [FAN_OUTS["5,5"]],
    "labor": LABOR,
    "bf16": BF16,
    "bf16-hops": [*BF16, f"{SAMPLED}.precision=bf16"],
    "in-batch": IN_BATCH,
    "fewest-rows": [FAN_OUTS["5,5"], *LABOR, *IN_BATCH],
    "best": [FAN_OUTS["5,5"]],
    "sent": [],
    "replicated": ["training.tables=replicated"],
    "allocator": [],
    "tenth": [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=600_000)
    parser.add_argument("--items", type=int, default=400_000)
    parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[2], help="several: one after the other")
    parser.add_argument("--threads", type=int, default=1, help="of a worker")
    parser.add_argument("--batch", type=int, default=2048, help="interactions of a worker and step")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rows", nargs="+", default=["plain", "tenth"], choices=[*ROWS, "all"])
    parser.add_argument("--work", help="folder for the graph, kept; without it a temporary one")
    parser.add_argument("--build-only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build_only:
        build(arguments.build_only, arguments.work)
        return
    work = work_folder(arguments.work)
    graphs = {"whole": generated(arguments, work, 1)}
    rows = list(ROWS) if "all" in arguments.rows else arguments.rows
    if "tenth" in rows:
        graphs["tenth"] = generated(arguments, work, 10)
    result: dict[str, Any] = {"build": {name: built(path, work) for name, path in graphs.items()}}
    for workers in arguments.workers:
        for row in rows:
            path = graphs["tenth" if row == "tenth" else "whole"]
            found = result[f"{row}, {workers} worker(s)"] = train(row, path, workers, arguments, work)
            found["load_average"] = round(os.getloadavg()[0], 1)
            print(row, workers, json.dumps(found), file=sys.stderr, flush=True)
    print_json(result)


def generated(arguments: argparse.Namespace, work: Path, part: int) -> str:
    """Path of the graph, a `part`-th of the size, generated unless it is there."""
    from scale_data import power_law_folder

    sizes = {name: getattr(arguments, name) // part for name in ("users", "items", "interactions")}
    start = time.perf_counter()
    path: str = power_law_folder(work, **sizes).path
    print(f"{path}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return path


def built(path: str, work: Path) -> dict[str, Any]:
    """Seconds and peak memory of building the graph from Parquet, in a process of its own."""
    command = [sys.executable, __file__, "--build-only", path, "--work", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def build(path: str, work: str) -> None:
    """Build anew, and print."""
    from braidrec.data.folder import DatasetFolder
    from braidrec.training.context import SingleProcess
    from braidrec.training.world import load_interactions

    folder, cache = DatasetFolder.open(path), Path(work) / "cache"
    trial = Path(work) / f"build-{secrets.token_hex(4)}"
    before = _peak_mb()
    try:
        start = time.perf_counter()
        relation = load_interactions(folder, SingleProcess(), trial)
        seconds = time.perf_counter() - start
        peak, size = _peak_mb() - before, (relation.indptr.nbytes + relation.indices.nbytes) / 2**20
    finally:
        shutil.rmtree(trial)
    load_interactions(folder, SingleProcess(), cache)  # so that no training waits for it
    numbers = {"seconds": round(seconds, 1), "peak_mb": round(peak), "graph_mb": round(size)}
    numbers |= {"directed_edges": relation.num_edges, "peak_over_graph": round(peak / size, 2)}
    print(json.dumps(numbers))


def train(row: str, path: str, workers: int, arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """The training of a row, in processes of its own; what rank 0 says."""
    from braidrec.training.environment import training_environment

    overrides = [
        f"data.path={path}", f"storage={work / 'runs'}", f"cache={work / 'cache'}", "tracking.enabled=false",
        "workers.num=0", "evaluation.monitor=null", "evaluation.patience=null", "evaluation.test=false",
        "model.encoder.layers=2", f"{SAMPLED}.mode=sampled", FAN_OUTS["10,10"], "data.delivery=memory",
        "training.optimizer.kind=row_adagrad", "training.optimizer.learning_rate=0.05", "training.tables=sharded",
        f"training.batch_size={arguments.batch * workers}", *ROWS[row],
    ]  # fmt: skip
    settings = {
        "workers": workers, "threads": arguments.threads, "sent": row == "sent",
        "steps": arguments.steps, "overrides": overrides,
        "work": str(work), "rendezvous": str(work / f"rendezvous-{secrets.token_hex(4)}"),
    }  # fmt: skip
    present = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    allocator = "system" if row == "allocator" else "tuned"
    environment = present | training_environment(arguments.threads, present, allocator=allocator)
    script = str(Path(__file__).with_name("scale_worker.py"))
    processes = [
        subprocess.Popen(
            [sys.executable, script, json.dumps(settings | {"rank": rank})],
            env=environment, stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL, text=True,
        )
        for rank in range(workers)
    ]  # fmt: skip
    try:
        output = processes[0].communicate()[0]
        states = [process.wait() for process in processes]
    finally:
        for process in processes:
            process.kill()
        Path(settings["rendezvous"]).unlink(missing_ok=True)
    if any(states):
        sys.exit(f"{row}: workers ended with status {states}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
