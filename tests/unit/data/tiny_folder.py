"""Dataset folders of a few rows, for tests of what reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from braidrec.data.description import SPLITS, ProtocolDescription
from braidrec.data.folder import DatasetFolder
from braidrec.data.writer import DatasetWriter

Row = tuple[int, int, float]
"""User, item, rating; the row's weight is its rating + 100."""


def write_tiny(
    path: Path, splits: Mapping[str, Sequence[Row]], *, num_users: int, num_items: int, columns: Sequence[str] = ()
) -> DatasetFolder:
    """Write the rows, with "rating" and "weight" if they are among the columns."""
    writer = DatasetWriter.begin(str(path), seed=1)
    writer.write_users(pa.array([f"u{index}" for index in range(num_users)]))
    writer.write_items(pa.array([f"i{index}" for index in range(num_items)]))
    for split in SPLITS:
        rows = np.array(splits.get(split, []), dtype=np.float64).reshape(-1, 3)
        values = {
            "user": rows[:, 0].astype(np.int32),
            "item": rows[:, 1].astype(np.int32),
            "rating": rows[:, 2].astype(np.float32),
            "weight": (rows[:, 2] + 100).astype(np.float32),
        }
        writer.write_split(split, {name: values[name] for name in ("user", "item", *columns)})
    writer.finish(name="tiny", protocol=ProtocolDescription(kind="given", seed=1), options={})
    return DatasetFolder.open(str(path))
