"""A split of a dataset folder as a source of Ray Data."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from braidrec.data.errors import DatasetError
from braidrec.data.storage import Location


class SplitSource(Datasource):  # type: ignore[misc]
    """One read task a part file, one block a row group.

    `ray.data.read_parquet` would list and sample the files once more, in processes of their own, and cut them by the
    number of CPUs that it finds. `dataset.json` names the files already; and where blocks depend on nothing but the
    files, the shards of a training are the same on every cluster.

    Args:
        files: the part files in reading order, each with its size in bytes.
        schema: the columns wanted and their types.
        extra: rows of that schema that follow the last file.
    """

    def __init__(self, files: Sequence[tuple[Location, int]], schema: Any, extra: Any = None) -> None:
        super().__init__()
        self._files, self._schema, self._extra = list(files), schema, extra

    def estimate_inmemory_data_size(self) -> int:
        return sum(size for _, size in self._files)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        last = len(self._files) - 1
        return [
            self._task(file, size, self._extra if index == last else None, per_task_row_limit)
            for index, (file, size) in enumerate(self._files)
        ]

    def _task(self, file: Location, size: int, extra: Any, limit: int | None) -> ReadTask:
        schema = self._schema

        def read() -> Iterator[Any]:
            yield from _row_groups(file, schema)
            if extra is not None:
                yield extra

        metadata = BlockMetadata(num_rows=None, size_bytes=size, exec_stats=None, input_files=(file.uri,))
        return ReadTask(read, metadata, schema=schema, per_task_row_limit=limit)


def _row_groups(file: Location, schema: Any) -> Iterator[Any]:
    try:
        with file.filesystem.open_input_file(file.path) as source:
            parquet = pq.ParquetFile(source)
            for group in range(parquet.num_row_groups):
                yield parquet.read_row_group(group, columns=schema.names).select(schema.names).cast(schema)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise DatasetError(f"{file.uri}: not readable ({error}); the file is damaged: make the data set anew") from None
