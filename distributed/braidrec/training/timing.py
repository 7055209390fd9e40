"""Seconds by phase, and the memory of this process."""

import resource
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class PhaseTimer:
    """Adds up wall-clock seconds by phase ("data", "sampling", "forward_backward", …).

    On a GPU kernels are launched asynchronously: the device is waited for at the end of a phase, so that its seconds
    are its own.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the seconds of the block under `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            self._seconds[name] += time.perf_counter() - start

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by phase."""
        seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Highest resident memory of this process so far, and of its GPU, in MiB."""
    peak = {"memory/peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if device.type == "cuda":
        peak["memory/gpu_peak_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return peak
