"""Seconds of the library's training steps, measured in this process."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import run_config

WARM_UP = 2


class KernelClock:
    """Adds up the seconds inside the propagation's kernel, from its making on."""

    def __init__(self) -> None:
        from braidrec.graph import kernels

        self.seconds = 0.0
        self._plain = kernels.KERNELS["dgl"]
        kernels.KERNELS["dgl"] = self._timed

    def _timed(self, structure: Any, h: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        out = self._plain(structure, h)
        self.seconds += time.perf_counter() - start
        return out

    def reset(self) -> None:
        """Begin anew."""
        self.seconds = 0.0


def loop_of(preset: str, folder: Any, settings: list[str]) -> Any:
    """A preset's training loop without validation, over the whole graph; nothing is written to disk."""
    from braidrec.data.storage import Location
    from braidrec.training.build import build_parts
    from braidrec.training.local_worker import LocalWorker
    from braidrec.training.loop import Loop

    whole = ["training.propagation.mode=full", "evaluation.monitor=null", "evaluation.patience=null"]
    config = run_config(preset, folder, Path("."), [*whole, *settings])
    worker = LocalWorker(torch.device("cpu"), lambda event: None)
    loop = Loop(config, build_parts(config, folder, worker), worker, Location.of("."))
    if loop.parts.has_changing_relations:
        loop.parts.before_epoch(1)
    return loop


def seconds_of_steps(loop: Any, batches: int, when_warm: Callable[[], None] = lambda: None) -> list[float]:
    """Seconds of each of `batches` steps, fetching the batch included, after two that warm up."""
    from braidrec.training.step import Position

    seconds: list[float] = []
    epoch = 1
    rows = loop.parts.delivery.batches(epoch, loop.batch_rows, loop.steps_per_epoch)
    for step in range(batches + WARM_UP):
        if step == WARM_UP:
            when_warm()
        start = time.perf_counter()
        batch = next(rows, None)
        if batch is None:
            epoch += 1
            rows = loop.parts.delivery.batches(epoch, loop.batch_rows, loop.steps_per_epoch)
            batch = next(rows)
        loop.step.run(batch, Position(epoch=epoch, step=step, global_step=step))
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]
