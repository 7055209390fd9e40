"""Graph and features lie in a node's memory once, whatever the number of its workers: as proportional set size."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from braidrec.data.description import ProtocolDescription
from braidrec.data.writer import DatasetWriter, part_name

USERS, ITEMS, ROWS, DIM = 60_000, 40_000, 3_000_000, 512
LARGEST_GROWTH = 0.15
SCRIPT = Path(__file__).with_name("one_copy_process.py")


def write_data(path: Path) -> None:
    random = np.random.default_rng(4)
    writer = DatasetWriter.begin(str(path), seed=1)
    writer.write_users(pa.array(np.arange(USERS)))
    writer.write_items(pa.array(np.arange(ITEMS)))
    for split, count in (("train", ROWS), ("valid", 10), ("test", 10)):
        columns = {
            "user": random.integers(0, USERS, count, np.int32),
            "item": random.integers(0, ITEMS, count, np.int32),
        }
        writer.add(part_name(f"interactions/{split}", 0), pa.table(columns))
        writer.describe_split(split, count, list(columns))
    vectors = np.repeat(random.standard_normal((ITEMS, DIM // 8), np.float32), 8, axis=1)
    writer.write_features("text", np.arange(ITEMS), vectors, {})
    writer.finish(name="n", protocol=ProtocolDescription(kind="given", seed=1), options={})


class Process:
    """One worker."""

    def __init__(self, data: Path, cache: Path) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(SCRIPT), str(data), str(cache)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process died"
        return line.strip()

    def load(self) -> float:
        assert self._process.stdin is not None
        print("load", file=self._process.stdin, flush=True)
        return float(self.answer())

    @property
    def proportional_mb(self) -> float:
        rollup = Path(f"/proc/{self._process.pid}/smaps_rollup").read_text()
        return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="proportional memory is read from Linux")
def test_a_second_worker_adds_little(tmp_path: Path) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    write_data(data)
    workers: list[Process] = []
    try:
        builder = Process(data, cache)  # builds the cache, so that neither of the two does
        workers.append(builder)
        builder.answer()
        wanted = builder.load()
        builder.end()
        pair = [Process(data, cache) for _ in range(2)]
        workers += pair
        assert [worker.answer() for worker in pair] == ["ready", "ready"]
        memory = [sum(worker.proportional_mb for worker in pair)]
        for worker in pair:
            assert worker.load() == pytest.approx(wanted)
            memory.append(sum(each.proportional_mb for each in pair))
    finally:
        for worker in workers:
            worker.end()
    size = sum(file.stat().st_size for file in cache.rglob("*.npy")) / 2**20
    first, second = np.diff(memory)
    print(f"graph and features {size:.0f} MiB; the first worker adds {first:.0f}, the second {second:.1f} MiB")
    assert first > 0.9 * size  # it was all read
    assert second < LARGEST_GROWTH * size
