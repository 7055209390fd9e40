"""Exact content neighbours: 200,000 items with 384 features, k = 10. Time, and memory beyond the table.

    python benchmarks/knn.py

The table (307 MB) is written to a file and mapped, as a run has it. Memory is the peak of what the process holds of its
own beyond what it held before the search (mapped pages of the table do not count), sampled every 50 ms; the result is
part of it. `--method faiss` measures the approximate search and its recall on a sample of items.
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from common import print_json

from braidrec.graph.knn import TILE_BYTES, Neighbours, content_neighbours
from braidrec.training.environment import use_threads


class PeakMemory:
    """Highest private memory of this process inside the block, beyond that at its start, in bytes."""

    def __init__(self) -> None:
        self._process, self._stop = psutil.Process(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.extra = 0

    def __enter__(self) -> "PeakMemory":
        self._start = self._private()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.extra = max(self.extra, self._private() - self._start)

    def _private(self) -> int:
        memory = self._process.memory_info()
        return memory.rss - memory.shared


def main() -> None:
    options = parse_arguments()
    use_threads(options.threads)
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        features = table(Path(folder) / "features.npy", options)
        present = np.ones(options.items, dtype=bool)
        search = {"device": device, "method": options.method, "tile_bytes": options.tile_bytes}
        with PeakMemory() as memory:
            start, cpu_start = time.perf_counter(), time.process_time()
            found = content_neighbours(features, present, options.k, **search)
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        result = {
            "items": options.items,
            "features": options.features,
            "type": options.type,
            "k": options.k,
            "method": options.method,
            "device": str(device),
            "threads": options.threads,
            "seconds": round(seconds, 1),
            "cpu_seconds": round(cpu_seconds, 1),
            "comparisons_per_second": round(options.items**2 / seconds / 1e6) * 10**6,
            "peak_extra_megabytes": round(memory.extra / 1e6),
            "result_megabytes": round((found.indices.nbytes + found.similarity.nbytes) / 1e6),
            "load_average_of_the_last_minute": round(os.getloadavg()[0], 1),
            **checked(features, found, options),
        }
    print_json(result)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=384)
    parser.add_argument("--type", choices=["float16", "float32"], default="float32")
    parser.add_argument("--clusters", type=int, default=2_000, help="of which the items are noisy copies")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--method", choices=["exact", "faiss", "auto"], default="exact")
    parser.add_argument("--tile-bytes", type=int, default=TILE_BYTES)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--checked", type=int, default=200, help="items whose neighbours are compared with numpy's")
    parser.add_argument("--work", help="folder for the table")
    return parser.parse_args()


def table(path: Path, options: argparse.Namespace) -> np.ndarray:
    """Noisy copies of random centres, written a part at a time and mapped."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(options.clusters, options.features)).astype(np.float32)
    mapped = np.lib.format.open_memmap(path, mode="w+", dtype=options.type, shape=(options.items, options.features))
    for start in range(0, options.items, 10_000):
        rows = mapped[start : start + 10_000]
        rows[:] = centres[rng.integers(0, options.clusters, len(rows))]
        rows += rng.normal(size=rows.shape).astype(options.type)
    mapped.flush()
    return np.load(path, mmap_mode="r")


def checked(features: np.ndarray, found: Neighbours, options: argparse.Namespace) -> dict[str, Any]:
    """Recall, and the largest error of a similarity, on items drawn at random, against numpy in fp64."""
    items = np.random.default_rng(1).choice(options.items, min(options.checked, options.items), replace=False)
    rows = np.asarray(features).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    hits, error = 0, 0.0
    for item in items:
        cosines = rows @ rows[item]
        cosines[item] = -np.inf
        best = np.argpartition(-cosines, options.k)[: options.k]
        hits += len(np.intersect1d(best, found.indices[item]))
        error = max(error, float(np.abs(cosines[found.indices[item]] - found.similarity[item]).max()))
    return {"recall_on_a_sample": hits / (len(items) * options.k), "largest_error_of_a_similarity": error}


if __name__ == "__main__":
    main()
