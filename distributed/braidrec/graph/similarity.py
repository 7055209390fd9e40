"""Cosine similarity of two feature rows as one number that depends on nothing but the two rows.

A matrix product gives slightly different numbers for other tile shapes, threads and devices. Here the similarity of two
rows is defined as: both brought to length one (in fp64, rounded to fp32), multiplied in fp64 (exact), added up in a
fixed binary tree, and rounded to a multiple of 2⁻²⁴, about what rows of fp32 can resolve. Equal rows have equal
similarities, and orthogonal ones have zero. Matrix products only find out which pairs need this.

A similarity and the place of a neighbour make one int64 key: of two keys the higher belongs to the higher similarity
or, where these are equal, to the lower place. No two keys of a row are equal, so top-k of keys is deterministic.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RESOLUTION = float(2**24)
ABSENT = -(2**62)
"""The key of no neighbour, below all others."""
_PLACES = 2**31
_BYTES_PER_VALUE = 40
"""What one feature value takes while rows are read, scaled and multiplied: fp32 and fp64 copies of it."""

Features = Tensor | NDArray[Any]


class UnitRows:
    """The feature rows that can be compared, of length one, read a tile at a time.

    A row's place is its rank among them.

    Args:
        features: `[num_items, F]` floats; may be memory-mapped, rows are read when they are needed.
        present: `[num_items]` bool.
        device: where tiles are computed.
        tile_bytes: memory for the tiles.

    Attributes:
        items: `[num_valid]` int64, the items whose row is present, finite and not zero, ascending.
        norms: `[num_valid]` fp64.
    """

    def __init__(
        self, features: Features, present: NDArray[np.bool_], *, device: torch.device, tile_bytes: int
    ) -> None:
        self.features = features if isinstance(features, Tensor) else np.asarray(features)
        self.device = device
        self.dim = features.shape[1]
        self.tile_bytes = tile_bytes
        candidates = np.flatnonzero(present)
        norms = np.empty(len(candidates))
        for start in range(0, len(candidates), self.rows_at_once()):
            part = slice(start, start + self.rows_at_once())
            rows = self._read(candidates[part]).double()
            norms[part] = tree_sum(rows * rows).sqrt().cpu().numpy()
        valid = np.isfinite(norms) & (norms > 0)
        self.items = candidates[valid]
        self.norms = norms[valid]

    def __len__(self) -> int:
        return len(self.items)

    def rows_at_once(self, values_each: int = 0) -> int:
        """How many rows, each with `values_each` times as many values again, may be worked on at a time."""
        return max(1, self.tile_bytes // (_BYTES_PER_VALUE * self.dim * (1 + values_each)))

    def take(self, places: NDArray[Any]) -> Tensor:
        """`[len(places), F]` fp32 of length one."""
        norms = torch.from_numpy(self.norms[places]).to(self.device)
        return (self._read(self.items[places]).double() / norms.unsqueeze(1)).float()

    def tile(self, start: int, stop: int) -> Tensor:
        return self.take(np.arange(start, min(stop, len(self))))

    def _read(self, items: NDArray[np.int64]) -> Tensor:
        if isinstance(self.features, Tensor):
            return self.features[torch.from_numpy(items).to(self.features.device)].to(self.device)
        return torch.from_numpy(self.features[items]).to(self.device)


def tree_sum(terms: Tensor) -> Tensor:
    """Sum over the last dimension in a fixed order: the upper half is added to the lower one until one is left.

    Only elementwise operations, so the result is the same bit for bit whatever the other dimensions and the device. The
    terms are overwritten.
    """
    while terms.shape[-1] > 1:
        half = (terms.shape[-1] + 1) // 2
        terms[..., : terms.shape[-1] - half] += terms[..., half:]
        terms = terms[..., :half]
    return terms[..., 0]


def quantised(similarity: Tensor) -> Tensor:
    """An fp64 similarity in units of 2⁻²⁴, int64, within [−1, 1]."""
    return (similarity * RESOLUTION).round_().clamp_(-RESOLUTION, RESOLUTION).long()


def pair_similarity(one: Tensor, other: Tensor) -> Tensor:
    """The defined similarity of unit rows, `[…, F]` and `[…, F]` that broadcast → `[…]` int64 in units of 2⁻²⁴."""
    return quantised(tree_sum(one.double() * other.double()))


def keys_of(similarity: Tensor, places: Tensor) -> Tensor:
    """Keys of quantised similarities and the places of the neighbours."""
    return similarity * _PLACES + (_PLACES - 1 - places)


def decode_keys(keys: Tensor) -> tuple[Tensor, Tensor]:
    """`(place int64, similarity fp32)` of keys; −1 and 0 for `ABSENT`."""
    absent = keys == ABSENT
    places = _PLACES - 1 - (keys & (_PLACES - 1))
    similarity = (keys >> 31).double() / RESOLUTION
    return places.masked_fill(absent, -1), similarity.masked_fill(absent, 0.0).float()


def product_error(dim: int, dtype: torch.dtype) -> float:
    """An upper bound of how far a matrix product of unit rows in `dtype`, summed in any order, is from the truth.

    `F u / (1 − F u)` with u the unit roundoff (Higham, Accuracy and Stability of Numerical Algorithms, 3.1); the extra
    terms are for rows whose length is one up to rounding.
    """
    roundoff = torch.finfo(dtype).eps / 2
    return 1.01 * (dim + 4) * roundoff
