"""Dotted keys, by which a setting is named wherever it is spoken of: `training.optimizer.learning_rate`."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def leaves(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in a plain configuration that holds no more keys; what is empty is a value."""
    for name, value in plain.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{key}.")
        else:
            yield key, value


def lies_below(key: str, outer: str) -> bool:
    """Whether a dotted key is within what stands at another one."""
    return key.startswith(f"{outer}.")


def is_among(key: str, keys: Iterable[str]) -> bool:
    """Whether a dotted key is one of these, or within what stands at one of them."""
    return any(key == outer or lies_below(key, outer) for outer in keys)
