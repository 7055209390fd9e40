"""Random numbers as a function of where they are used, so that a resumed run draws what an uninterrupted one draws."""

import zlib

import numpy as np


def generator_for(seed: int, purpose: str, *position: int) -> np.random.Generator:
    """An independent generator for `purpose` at `position` (epoch, step, rank …) of the run with `seed`.

    There is no state to save: the position of the run is the state.
    """
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *position])


def seed_for(seed: int, purpose: str, *position: int) -> int:
    """A 31-bit seed, likewise, for libraries that take only a number (torch, DGL)."""
    return int(generator_for(seed, purpose, *position).integers(0, 2**31 - 1))
