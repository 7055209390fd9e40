"""Where relative paths lead."""

import os
from pathlib import Path

from braidrec.data.storage import Location


def absolute_place(place: str) -> str:
    """An absolute path or URI for `place`.

    A submitted job runs in a temporary copy of the project. What it would leave there, or does not find there, is at
    the same relative path below `~/braidrec` instead, where it stays.
    """
    in_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
    if in_job and "://" not in place and not Path(place).expanduser().is_absolute() and not Path(place).exists():
        return str(Path.home() / "braidrec" / place)
    return Location.of(place).uri
