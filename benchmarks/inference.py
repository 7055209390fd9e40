"""Encoding all nodes at once and in tiles: time and memory.

    python benchmarks/inference.py                    # 600,000 users, 400,000 items, 10⁷ interactions
    python benchmarks/inference.py --workers 2 --kind tiled --tile-mb 64

LightGCN over a generated graph (benchmarks/scale_data.py), whose data set is written to the work folder on first use.
Each worker is a process with one thread. Prints JSON: seconds by the clock and of the processor, and of every worker
what its memory rose by while it encoded: anonymous memory (its own, which no other process and no file has), and what
of it is left afterwards; and the proportional memory of all when they hold the result. `checksum` and `first` are of
the vectors, so that two ways can be compared.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from common import ROOT, print_json, work_folder
from scale_data import power_law_folder

WORKER = "--as-worker"


def main() -> None:
    if sys.argv[1:2] == [WORKER]:
        encode_as_worker(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=600_000)
    parser.add_argument("--items", type=int, default=400_000)
    parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=("whole", "tiled"), nargs="+", default=["whole", "tiled"])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tables", choices=("replicated", "sharded"), default="sharded")
    parser.add_argument("--tile-mb", type=int, default=256, help="what a tile may take")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2, help="the fastest is reported")
    parser.add_argument("--work", help="folder for data and files; a temporary one if not given")
    options = parser.parse_args()
    work = work_folder(options.work)
    sizes = {"users": options.users, "items": options.items, "interactions": options.interactions}
    data = power_law_folder(work, **sizes, seed=options.seed).path
    results = [measured(options, kind, workers, work, data) for kind in options.kind for workers in options.workers]
    print_json({"nodes": options.users + options.items, "interactions": options.interactions, "results": results})


def measured(options: argparse.Namespace, kind: str, workers: int, work: Path, data: str) -> dict[str, Any]:
    """One way on one number of workers, all of them processes of this machine."""
    with tempfile.TemporaryDirectory(dir=work) as scratch:
        settings = {
            "world_size": workers,
            "rendezvous": f"{scratch}/rendezvous",
            "repeats": options.repeats,
            "overrides": [
                f"data.path={data}", f"storage={scratch}", f"cache={work / 'cache'}", "tracking.enabled=false",
                f"workers.num={workers}", "workers.threads=1", f"model.dim={options.dim}",
                f"model.encoder.layers={options.layers}", f"training.tables={options.tables}",
                "training.propagation.mode=sampled", "training.optimizer.kind=row_adagrad",
                f"evaluation.inference={kind}", f"evaluation.tile_mb={options.tile_mb}",
            ],
        }  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), WORKER]
        processes = [
            subprocess.Popen(
                [*command, json.dumps({**settings, "rank": rank})], stdout=subprocess.PIPE, text=True, env=environment
            )
            for rank in range(workers)
        ]
        answers = [process.communicate()[0] for process in processes]
        if any(process.returncode for process in processes):
            sys.exit(f"a worker of {kind} on {workers} failed")
    found = [json.loads(answer.splitlines()[-1]) for answer in answers]
    return {
        "kind": kind,
        "workers": workers,
        "seconds": max(each["seconds"] for each in found),
        "processor_seconds_of_workers": [each["processor_seconds"] for each in found],
        "anonymous_mb_risen_to": [each["anonymous_mb_risen_to"] for each in found],
        "anonymous_mb_kept": [each["anonymous_mb_kept"] for each in found],
        "proportional_mb_of_all": round(sum(each["proportional_mb"] for each in found)),
        "checksum": found[0]["checksum"],
        "first": found[0]["first"],
    }


def encode_as_worker(settings: dict[str, Any]) -> None:
    """One rank: the library's own parts, and their encoding of all nodes."""
    import torch
    import torch.distributed as dist
    from memory import proportional_mb
    from scale_worker import Worker

    from braidrec.config.load import load_config
    from braidrec.config.run import RunConfig
    from braidrec.data.folder import DatasetFolder
    from braidrec.training.build import build_parts
    from braidrec.training.environment import give_memory_back, use_threads
    from braidrec.training.validation import encode_all

    use_threads(1)
    rank, world_size = settings["rank"], settings["world_size"]
    dist.init_process_group("gloo", init_method=f"file://{settings['rendezvous']}", rank=rank, world_size=world_size)
    config = load_config(RunConfig, [ROOT / "configs" / "models" / "lightgcn.yaml"], settings["overrides"])
    parts = build_parts(
        config, DatasetFolder.open(config.data.path), Worker(device=torch.device("cpu"), local_rank=rank)
    )
    best: tuple[float, float] | None = None
    give_memory_back()
    before = anonymous_mb()
    with Highest() as highest:
        for _ in range(settings["repeats"]):
            dist.barrier()
            start, processor = time.perf_counter(), time.process_time()
            encoded = encode_all(parts)
            took = (time.process_time() - processor, time.perf_counter() - start)
            best = took if best is None or took < best else best
    dist.barrier()
    give_memory_back()
    assert best is not None
    answer = {
        "seconds": round(best[1], 2),
        "processor_seconds": round(best[0], 2),
        "anonymous_mb_risen_to": round(highest.mb - before),
        "anonymous_mb_kept": round(anonymous_mb() - before),
        "proportional_mb": proportional_mb(os.getpid(), Path(config.cache or ""))["all"],
        "checksum": float(encoded.vectors.double().sum()),
        "first": encoded.vectors[0, :3].tolist(),
    }
    dist.barrier()
    print(json.dumps(answer), flush=True)
    dist.destroy_process_group()


def anonymous_mb() -> float:
    """MiB of this process that no file has."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) / 1024


class Highest:
    """The most anonymous memory within the block, looked at every 5 ms."""

    def __enter__(self) -> "Highest":
        self.mb, self._done = anonymous_mb(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.005):
            self.mb = max(self.mb, anonymous_mb())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


if __name__ == "__main__":
    main()
