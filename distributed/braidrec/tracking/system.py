"""MLflow's own system monitors (CPU, memory, disk, network, GPU), sampled into the outbox instead of past it.

MLflow's `SystemMetricsMonitor` thread talks to the server itself and ends for good at the first failure; its monitors
are used here without it. Names are MLflow's ("system/cpu_utilization_percentage"), so its page shows them.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from braidrec.tracking.messages import MetricPoint, Metrics
from braidrec.tracking.naming import metric_name


class SystemSampler:
    """Takes one sample per period in a thread of its own.

    Args:
        emit: receives each sample; returns at once.
        period: seconds between two samples.
    """

    def __init__(self, emit: Callable[[Metrics], None], period: float = 10.0) -> None:
        self._emit = emit
        self._period = period
        self._monitors = _monitors()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="braidrec-system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No sample is emitted once this has returned."""
        self._stopped.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stopped.wait(self._period):
            timestamp = int(time.time() * 1000)
            points = tuple(
                MetricPoint(key=metric_name(f"system/{name}"), value=float(value), timestamp=timestamp, step=None)
                for monitor in self._monitors
                for name, value in _take(monitor).items()
            )
            self._emit(Metrics(points=points))


def _take(monitor: Any) -> dict[str, float]:
    monitor.collect_metrics()
    sample: dict[str, float] = monitor.aggregate_metrics()
    monitor.clear_metrics()
    return sample


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

    monitors = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    # Its constructor raises where there is no NVIDIA GPU or no nvidia-ml-py.
    with contextlib.suppress(Exception):
        monitors.append(GPUMonitor())
    return monitors
