"""What Ray Train runs on every worker. Its controller loads this module as well: heavy imports wait for the worker."""

from typing import Any


def train_worker(settings: dict[str, Any]) -> None:
    """Train as one rank."""
    from braidrec.training.ray_worker import run_worker

    run_worker(settings)
