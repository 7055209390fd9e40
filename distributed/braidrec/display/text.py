"""Numbers and durations as people read them."""

import math
import shutil
import sys
from pathlib import Path


def duration(seconds: float) -> str:
    """0:00:07, 1:02:03, 3 d 4:05:06; "?" for what is not known."""
    if not math.isfinite(seconds) or seconds < 0:
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    clock = f"{hour}:{minute:02}:{second:02}"
    return f"{days} d {clock}" if days else clock


def value(number: float) -> str:
    """A metric: four decimals where they say something, four significant digits otherwise."""
    return f"{number:.4f}" if number == 0 or 1e-2 <= abs(number) < 1e4 else f"{number:.4g}"


def with_spread(mean: float, spread: float | None, separator: str = " ") -> str:
    """A mean over seeds as people read it, with its standard deviation where that is known."""
    return value(mean) if spread is None else f"{value(mean)}{separator}± {spread:.4f}"


def rate(number: float) -> str:
    """A count per second with thousands separated, and decimals only where it is small."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def tool(name: str) -> str:
    """How a user starts a program of this Python's environment from here: ".venv/bin/mlflow", or its name alone where
    that is what the shell would find."""
    program = Path(sys.executable).with_name(name)
    if program == Path(shutil.which(name) or ""):
        return name
    return str(program.relative_to(Path.cwd())) if program.is_relative_to(Path.cwd()) else str(program)
