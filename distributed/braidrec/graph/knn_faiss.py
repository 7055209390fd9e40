"""Candidates for neighbours from FAISS, for catalogues on which comparing all pairs would take hours."""

import math
from collections.abc import Iterator
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from braidrec.graph.similarity import UnitRows

_CELLS_PER_ROOT = 4
_ROWS_PER_CELL_IN_TRAINING = 64
_FEWEST_ROWS_PER_CELL = 39
"""FAISS warns below this."""
_SHARE_PROBED = 1 / 32
_FEWEST_PROBES = 16
_TRAINING_ROUNDS = 10


def faiss_candidates(rows: UnitRows, count: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks of places and, for each of these rows, `count` places of similar rows: itself among them, −1 for none.

    An inverted file (FAISS `IndexIVFFlat`, inner product): rows are put into `4 √n` cells by spherical k-means, and
    those in the 1/32 of the cells (at least 16) nearest to a row are compared with it. The whole table is held in fp32.
    The cells may differ a little from one kind of machine to another, so the nodes of a run should share one result.

    Raises:
        ModuleNotFoundError: FAISS is not installed.
    """
    faiss = _import_faiss()
    if not len(rows):
        return
    cells = max(1, min(int(_CELLS_PER_ROOT * math.sqrt(len(rows))), len(rows) // _FEWEST_ROWS_PER_CELL))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(rows.dim), rows.dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    index.cp.niter = _TRAINING_ROUNDS
    index.nprobe = max(_FEWEST_PROBES, int(cells * _SHARE_PROBED))
    trained_on = min(len(rows), _ROWS_PER_CELL_IN_TRAINING * cells)
    index.train(rows.take(np.arange(trained_on) * len(rows) // trained_on).cpu().numpy())
    at_once = rows.rows_at_once()
    for start in range(0, len(rows), at_once):
        index.add(rows.tile(start, start + at_once).cpu().numpy())
    for start in range(0, len(rows), at_once):
        places = np.arange(start, min(start + at_once, len(rows)))
        # One more: the row itself is among those that are found.
        yield places, index.search(rows.take(places).cpu().numpy(), count + 1)[1]


def _import_faiss() -> ModuleType:
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "approximate neighbours need FAISS: pip install 'braidrec[ann]', or use method='exact'", name="faiss"
        ) from error
    module: ModuleType = faiss
    return module
