"""How long a full ranking takes, where the time goes, and what memory it needs.

    python benchmarks/ranking.py                          # the sizes of Gowalla, random pairs
    python benchmarks/ranking.py --data DATASET_FOLDER    # train and test pairs of a dataset folder
    python benchmarks/ranking.py --ann 8 32 --users 2000 --items 1000000 --train-pairs 40000 --test-pairs 10000

`--ann` compares the lists of an approximate index with exact ones, for each number of cells searched, instead.

Vectors are random unless `--vectors FILE` names a safetensors file with `user_vectors` and `item_vectors`. Prints JSON:
seconds of a whole evaluation (scores, masking, top-k, all cut-off metrics), its phases, the seconds that the matrix
products alone need, and the peak of extra resident memory, sampled every 5 ms.
"""

import argparse
import json
import resource
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.dataset
import torch
from safetensors.torch import load_file
from torch.profiler import ProfilerActivity, profile, record_function

from braidrec.evaluation.ann import AnnSearch
from braidrec.evaluation.evaluator import Evaluator
from braidrec.evaluation.full_ranking import rank
from braidrec.evaluation.held_out import UserItems
from braidrec.evaluation.ranker import VectorRanker
from braidrec.evaluation.score_tiles import BLOCK_ITEMS, BLOCK_USERS

PHASES = ("scores", "mask", "top_k", "auc")


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    train, test = pairs_of_folder(Path(options.data)) if options.data else random_pairs(options)
    ranker = make_ranker(options, train)
    if options.ann:
        json.dump(compare_with_index(options, ranker, train), sys.stdout, indent=2)
        print()
        return
    evaluator = Evaluator(
        held_out=test,
        mask=train,
        train_item_degree=np.bincount(train.items, minlength=train.num_items),
        train_user_degree=train.counts,
        at=options.at,
        auc=options.auc,
        tile_mb=options.tile_mb,
    )
    evaluator.run(ranker, evaluator.users[:BLOCK_USERS])
    seconds, cpu_seconds = [], []
    with PeakMemory() as memory:
        for _ in range(options.repeats):
            start, start_cpu = time.perf_counter(), time.process_time()
            state = evaluator.run(ranker)
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - start_cpu)
    products = [time_products(ranker, len(evaluator.users)) for _ in range(options.repeats)]
    report = {
        "users": len(evaluator.users),
        "items": ranker.num_items,
        "dim": ranker.dim,
        "threads": options.threads,
        "tile_mb": options.tile_mb,
        "seconds": round(min(seconds), 3),
        "cpu_seconds": round(min(cpu_seconds), 3),
        "products_alone_seconds": round(min(wall for wall, _ in products), 3),
        "products_alone_cpu_seconds": round(min(cpu for _, cpu in products), 3),
        "phases_seconds": profile_phases(evaluator, ranker),
        "peak_extra_mb": round(memory.extra_bytes / 2**20),
        "metrics": evaluator.result(state).metrics,
    }
    report["times_the_products"] = round(report["cpu_seconds"] / report["products_alone_cpu_seconds"], 2)
    json.dump(report, sys.stdout, indent=2)
    print()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="dataset folder written by jobs/prepare.py; its train and test splits are used")
    parser.add_argument("--vectors", help="safetensors file with user_vectors and item_vectors")
    parser.add_argument("--users", type=int, default=29_858)
    parser.add_argument("--items", type=int, default=40_981)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--train-pairs", type=int, default=810_128)
    parser.add_argument("--test-pairs", type=int, default=217_242)
    parser.add_argument("--at", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--auc", action="store_true", help="also the exact AUC per user")
    parser.add_argument("--ann", type=int, nargs="+", help="cells of an approximate index that are searched")
    parser.add_argument("--clusters", type=int, default=1_000, help="with --ann: what the random vectors lie around")
    parser.add_argument("--tile-mb", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest is reported")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def pairs_of_folder(folder: Path) -> tuple[UserItems, UserItems]:
    sizes = {
        "num_users": pyarrow.dataset.dataset(folder / "users.parquet").count_rows(),
        "num_items": pyarrow.dataset.dataset(folder / "items.parquet").count_rows(),
    }
    splits = []
    for name in ("train", "test"):
        table = pyarrow.dataset.dataset(folder / "interactions" / name).to_table(columns=["user", "item"])
        splits.append(UserItems.from_edges(table["user"].to_numpy(), table["item"].to_numpy(), **sizes))
    return splits[0], splits[1]


def random_pairs(options: argparse.Namespace) -> tuple[UserItems, UserItems]:
    random = np.random.default_rng(options.seed)
    splits = []
    for count in (options.train_pairs, options.test_pairs):
        # Every user has a pair, so that as many are ranked as asked for.
        users = np.concatenate([np.arange(options.users), random.integers(0, options.users, count - options.users)])
        items = random.integers(0, options.items, size=count)
        splits.append(UserItems.from_edges(users, items, num_users=options.users, num_items=options.items))
    return splits[0], splits[1]


def make_ranker(options: argparse.Namespace, train: UserItems) -> VectorRanker:
    if options.vectors:
        tensors = load_file(options.vectors)
        return VectorRanker(tensors["user_vectors"], tensors["item_vectors"])
    users, items = torch.randn(train.num_users, options.dim), torch.randn(train.num_items, options.dim)
    if options.ann:  # vectors without any structure are what no index is for
        centres = torch.randn(options.clusters, options.dim)
        users += centres[torch.randint(options.clusters, (len(users),))]
        items += centres[torch.randint(options.clusters, (len(items),))]
    return VectorRanker(users, items)


def compare_with_index(options: argparse.Namespace, ranker: VectorRanker, train: UserItems) -> dict[str, object]:
    """Processor seconds of exact lists, of building an index and of its lists, and their recall."""
    users, k = np.arange(ranker.num_users), max(options.at)
    import faiss  # of the extra `ann`

    faiss.omp_set_num_threads(options.threads)
    start = time.process_time()
    exact = rank(ranker, users, mask=train, k_max=k, tile_mb=options.tile_mb).items
    report = {"users": len(users), "items": ranker.num_items, "dim": ranker.dim, "threads": options.threads, "k": k}
    report["exact_cpu_seconds"] = round(time.process_time() - start, 2)
    start, found = time.process_time(), []
    search = AnnSearch(ranker, recall_users=1)
    report["build_cpu_seconds"] = round(time.process_time() - start, 2)
    for n_probe in options.ann:
        search.index.probe(n_probe)
        start = time.process_time()
        tiles = list(search.rank_tiles(users, mask=train, k_max=k))
        seconds = time.process_time() - start
        items = np.concatenate([tile.items for tile in tiles])
        hits = sum(len(set(mine) & set(best)) for mine, best in zip(items.tolist(), exact.tolist(), strict=True))
        assert search.report is not None
        found.append(
            {
                "n_list": search.report.n_list,
                "n_probe": n_probe,
                "cpu_seconds": round(seconds, 2),
                "recall": round(hits / exact.size, 4),
            }
        )
    return {**report, "approximate": found}


def time_products(ranker: VectorRanker, num_users: int) -> tuple[float, float]:
    """(wall, processor) seconds of the same matrix products into one small buffer: the floor of any exact ranking."""
    users = ranker.user_vectors(torch.arange(BLOCK_USERS) % ranker.num_users)
    items = ranker.item_vectors().t()
    buffer = torch.empty(BLOCK_USERS, BLOCK_ITEMS)
    start, start_cpu = time.perf_counter(), time.process_time()
    for _ in range(0, num_users, BLOCK_USERS):
        for left in range(0, ranker.num_items, BLOCK_ITEMS):
            block = items[:, left : left + BLOCK_ITEMS]
            torch.mm(users, block, out=buffer[:, : block.shape[1]])
    return time.perf_counter() - start, time.process_time() - start_cpu


def profile_phases(evaluator: Evaluator, ranker: VectorRanker) -> dict[str, float]:
    """Wall seconds of each phase in one further run; the rest are the metrics and everything in between."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function("whole"):
        evaluator.run(ranker)
    found = {event.key: event.cpu_time_total / 1e6 for event in profiler.key_averages()}
    phases = {phase: found[f"ranking/{phase}"] for phase in PHASES if f"ranking/{phase}" in found}
    phases["metrics_and_rest"] = found["whole"] - sum(phases.values())
    return {phase: round(seconds, 3) for phase, seconds in phases.items()}


class PeakMemory:
    """How far resident memory rises above its value on entry."""

    def __enter__(self) -> "PeakMemory":
        self._process = psutil.Process()
        self._before = self._process.memory_info().rss
        self._highest = self._before
        # The kernel's own high-water mark, which misses nothing, counts if it moves at all.
        self._mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._done.wait(0.005):
            self._highest = max(self._highest, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if mark > self._mark:
            self._highest = max(self._highest, mark * 1024)

    @property
    def extra_bytes(self) -> int:
        return self._highest - self._before


if __name__ == "__main__":
    main()
