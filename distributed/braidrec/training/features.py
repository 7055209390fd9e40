"""The feature tables of a run, as models ask for them."""

from collections.abc import Mapping

import torch
from torch import Tensor

from braidrec.features.table import FeatureTable

RESIDENT_BYTES = 2 << 30
"""A table that is smaller than this as fp32 is kept whole on the worker's device."""


class FeatureSet:
    """Item features by modality.

    Args:
        tables: by modality.
        device: where rows are wanted.
    """

    def __init__(self, tables: Mapping[str, FeatureTable], device: torch.device) -> None:
        self.tables = dict(tables)
        self._device = device
        self._resident: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def dims(self) -> dict[str, int]:
        """Numbers per vector, by modality."""
        return {name: table.dim for name, table in self.tables.items()}

    def fetch(self, modality: str, items: Tensor | None) -> tuple[Tensor, Tensor]:
        """`[n, F]` fp32 rows and `[n]` bool presence of some items, or of all in order; not to be written to."""
        table = self.tables[modality]
        if items is not None and not self._fits(table):
            return table.rows(items)
        values, present = self._whole(modality)
        return (values, present) if items is None else (values.index_select(0, items), present.index_select(0, items))

    def _fits(self, table: FeatureTable) -> bool:
        return 4 * table.num_rows * table.dim <= RESIDENT_BYTES

    def _whole(self, modality: str) -> tuple[Tensor, Tensor]:
        if modality not in self._resident:
            values, present = self.tables[modality].rows()
            self._resident[modality] = (values.to(self._device), present.to(self._device))
        return self._resident[modality]
