"""How the train split reaches the Ray Train workers: disjoint shards of equal size that are complete together."""

from typing import Any

import pyarrow as pa
from ray.data import ExecutionOptions
from ray.train import DataConfig

from braidrec.config.run import RunConfig
from braidrec.data.delivery import PADDING_USER, ShardPlan
from braidrec.data.folder import COLUMN_TYPES, DatasetFolder
from braidrec.training.build import loss_columns

_FILL = {"user": PADDING_USER, "item": 0, "rating": 0.0, "weight": 0.0}


class Shards(DataConfig):  # type: ignore[misc]
    """Deals out the train split in the order of its rows, whichever node a worker is on.

    Ray's equal split would drop what is left over; rows of user −1 fill it up, and are taken out on arrival. How many
    depends on the number of workers, which is known only when a group of them starts.
    """

    def __init__(self, config: RunConfig, folder: DatasetFolder) -> None:
        super().__init__(
            datasets_to_split=["train"],
            execution_options=ExecutionOptions(preserve_order=True),
            enable_shard_locality=False,
        )
        self._folder, self._columns = folder, loss_columns(config)

    def whole(self, num_workers: int = 1) -> Any:
        """The train split as a Ray Data set, filled up for so many workers."""
        padding = ShardPlan(total_rows=self._folder.num_rows("train"), world_size=num_workers).padding_rows
        schema = pa.schema([(name, COLUMN_TYPES[name]) for name in self._columns])
        rows = pa.table({name: [_FILL[name]] * padding for name in self._columns}, schema=schema)
        return self._folder.ray_dataset("train", self._columns, extra=rows)

    def configure(self, datasets: dict[str, Any], world_size: int, *places: Any, **others: Any) -> Any:
        """As Ray asks when a group of workers starts."""
        return super().configure({name: self.whole(world_size) for name in datasets}, world_size, *places, **others)
