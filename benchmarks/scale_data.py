"""A power-law graph of any size as a dataset folder, written once, in bounded memory.

A user (item) of popularity rank r is drawn in proportion to `(r + 1)^-a`, by inversion of the continuous law:
`r = ⌊n x^{1/(1 − a)}⌋` for a uniform x. Ranks are spread over the indices, as in logs whose ids are numbered by first
appearance, so that popular rows do not lie together by themselves. A part's repeated pairs are dropped; those between
parts stay and become one edge.
"""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from braidrec.data.description import ProtocolDescription
from braidrec.data.folder import DatasetFolder
from braidrec.data.writer import DatasetWriter, part_name
from braidrec.distinct import distinct

USER_EXPONENT, ITEM_EXPONENT = 0.5, 0.7
PART_ROWS = 2_000_000
HELD_OUT_ROWS = 10_000


def power_law_folder(work: Path, *, users: int, items: int, interactions: int, seed: int = 1) -> DatasetFolder:
    """The folder of these sizes under `work`, generated unless it is there."""
    path = work / "datasets" / f"power-law-{users}-{items}-{interactions}-{seed}"
    if (path / "dataset.json").is_file():
        return DatasetFolder.open(str(path))
    writer = DatasetWriter.begin(str(path), seed=seed, overwrite=True)
    writer.write_users(_names("u", users))
    writer.write_items(_names("i", items))
    rows = 0
    parts = math.ceil(interactions / PART_ROWS)
    for part in range(parts):
        wanted = min(PART_ROWS, interactions - part * PART_ROWS)
        table = _pairs(np.random.default_rng([seed, part]), wanted, users, items)
        writer.add(part_name("interactions/train", part), table)
        rows += table.num_rows
    writer.describe_split("train", rows, ["user", "item"])
    for place, split in enumerate(("valid", "test")):
        table = _pairs(np.random.default_rng([seed, parts + place]), HELD_OUT_ROWS, users, items)
        writer.add(part_name(f"interactions/{split}", 0), table)
        writer.describe_split(split, table.num_rows, ["user", "item"])  # type: ignore[arg-type]
    sizes = {"users": users, "items": items, "interactions": interactions}
    exponents = {"user_exponent": USER_EXPONENT, "item_exponent": ITEM_EXPONENT}
    writer.finish(
        name=path.name,
        protocol=ProtocolDescription(kind="given", seed=seed),
        options={"kind": "power_law", **sizes, **exponents},
    )
    return DatasetFolder.open(str(path))


def _names(prefix: str, count: int) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(np.arange(count, dtype=np.int32)).cast(pa.string()), "")


def _pairs(random: np.random.Generator, rows: int, users: int, items: int) -> pa.Table:
    """`rows` distinct pairs in random order, fewer only where there are no more."""
    found = np.empty(0, dtype=np.int64)
    for _ in range(8):
        missing = rows - len(found)
        if missing <= 0:
            break
        drawn = _ranks(random, missing, users, USER_EXPONENT) * items + _ranks(random, missing, items, ITEM_EXPONENT)
        found = distinct(np.concatenate([found, drawn]))
    random.shuffle(found)
    columns = {"user": (found // items).astype(np.int32), "item": (found % items).astype(np.int32)}
    return pa.table(columns)


def _ranks(random: np.random.Generator, size: int, count: int, exponent: float) -> NDArray[np.int64]:
    """Indices by popularity, spread over `0 … count - 1` by a multiplication modulo `count`."""
    ranks = (count * random.random(size) ** (1 / (1 - exponent))).astype(np.int64)
    return ranks * _coprime(count) % count


def _coprime(count: int) -> int:
    """A factor near the golden section of `count` that has no divisor in common with it, so that none collide."""
    factor = max(1, int(count * 0.6180339887))
    while math.gcd(factor, count) != 1:
        factor += 1
    return factor
