"""What encoders that train a small network have in common."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """torch's chance starts at `seed` inside, and goes on outside as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed % 2**63)
        yield


def minibatches(count: int, size: int, epochs: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Every row once an epoch, in a new order each time."""
    random = np.random.default_rng(seed)
    for _ in range(epochs):
        order = random.permutation(count)
        for start in range(0, count, size):
            yield order[start : start + size]


def state_arrays(network: nn.Module) -> dict[str, NDArray[Any]]:
    return {name: value.detach().cpu().numpy() for name, value in network.state_dict().items()}


def with_arrays(network: Network, arrays: Mapping[str, NDArray[Any]]) -> Network:
    network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
    return network
