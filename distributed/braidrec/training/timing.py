"""Seconds by phase, and the memory of this process."""

import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

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

    @property
    def seconds(self) -> dict[str, float]:
        """Those since `take`, by phase."""
        return dict(self._seconds)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count what an earlier process measured."""
        for name, value in seconds.items():
            self._seconds[name] += value

    def take(self) -> dict[str, float]:
        """The seconds since the last call, by phase."""
        seconds, self._seconds = dict(self._seconds), defaultdict(float)
        return seconds


def forget_peaks(device: torch.device) -> None:
    """Let the peaks begin anew: a process may train one run after another, and each is told its own.

    Linux counts anew from what is resident now; elsewhere, or where that is not allowed, the peak stays the process's.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> dict[str, float]:
    """Highest resident memory of this process, and of its GPU, since `forget_peaks`, in MiB."""
    peak = {"memory/peak_mb": _peak_resident_kb() / 1024}
    if device.type == "cuda":
        peak["memory/gpu_peak_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return peak


def _peak_resident_kb() -> float:
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1])
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # never forgets
