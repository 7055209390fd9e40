"""Functions of rows that are computed a few rows at a time, so that what comes in between never has to fit at once."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

T = TypeVar("T", bound=Tensor | tuple[Tensor, ...])


def in_parts(function: Callable[..., T], tensors: Sequence[Tensor], size: int) -> list[T]:
    """Values of a function of `size` rows of the tensors at a time; of several parts, what comes in between is made
    again for gradients instead of being kept."""
    parts = zip(*(torch.split(tensor, size) for tensor in tensors), strict=True)
    if len(tensors[0]) <= size or not torch.is_grad_enabled():
        return [function(*part) for part in parts]
    return [checkpoint(function, *part, use_reentrant=False) for part in parts]
