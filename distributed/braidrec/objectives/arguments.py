"""Checks of what losses are made with."""

import math


def above_zero(name: str, value: float) -> float:
    """`value`, if it is a finite number above 0.

    Raises:
        ValueError: it is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}={value} must be a finite number above 0")
    return value
