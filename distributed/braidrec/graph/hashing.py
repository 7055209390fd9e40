"""Random numbers as a function of what they are for: the same on every rank, in any order, without a state.

The numbers of a generator depend on how many were drawn before. A view of a graph must not: every rank derives the same
edges, and the two directions of an edge share one decision. So each edge or node has a number, and a hash of it and of
the view's key is its random number.
"""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def stream_key(seed: int, *names: str) -> np.uint64:
    """A 64-bit key for the stream of random numbers of `seed` and `names`."""
    text = "\0".join([str(seed), *names]).encode()
    return np.uint64(int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little"))


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): a bijection of 64 bits that mixes them well."""
    mixed = values + _GOLDEN
    mixed ^= mixed >> np.uint64(30)
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(27)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint64(31)
    return mixed


def hashed(key: np.uint64, numbers: NDArray[Any]) -> NDArray[np.uint64]:
    """64 random bits for each of `numbers` (integers not below zero)."""
    # Mixed twice: keys and numbers are both likely to differ in a few bits only.
    return splitmix64(splitmix64(numbers.astype(np.uint64)) ^ key)


def uniform(key: np.uint64, numbers: NDArray[Any]) -> NDArray[np.float64]:
    """A random number in (0, 1) for each of `numbers`: the middle of one of 2⁵² equal steps."""
    return ((hashed(key, numbers) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def uniform_tensor(key: np.uint64, numbers: Tensor) -> Tensor:
    """`uniform` of int64 `numbers` where they are, in float64. Products wrap around in int64 as they do in uint64."""
    mixed = _splitmix64_tensor(_splitmix64_tensor(numbers) ^ _signed(key))
    return (_shifted(mixed, 12).double() + 0.5) * 2.0**-52


def _splitmix64_tensor(values: Tensor) -> Tensor:
    mixed = values + _signed(_GOLDEN)
    mixed = (mixed ^ _shifted(mixed, 30)) * _signed(_FIRST)
    mixed = (mixed ^ _shifted(mixed, 27)) * _signed(_SECOND)
    return mixed ^ _shifted(mixed, 31)


def _shifted(values: Tensor, places: int) -> Tensor:
    """To the right, with zeros coming in: int64 would repeat its sign."""
    return (values >> places) & ((1 << (64 - places)) - 1)


def _signed(value: np.uint64) -> int:
    return int(value.astype(np.int64))


def normal(key: np.uint64, numbers: NDArray[Any]) -> NDArray[np.float64]:
    """A standard normal number for each of `numbers`."""
    drawn: NDArray[np.float64] = ndtri(uniform(key, numbers))
    return drawn
