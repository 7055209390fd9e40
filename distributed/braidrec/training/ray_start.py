"""Connecting to Ray, or starting it here."""

import atexit
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

import braidrec
from braidrec.config.load import ConfigError
from braidrec.display.quiet import quiet_ray
from braidrec.errors import Stopped
from braidrec.training.environment import allocation_environment

_EVERYWHERE = {
    # How long a signal waits while the driver waits for Ray; a stopped job has three seconds in all.
    "RAY_get_check_signal_interval_milliseconds": "100",
}
_HERE = {
    # One machine is not taken away node by node, and asking two workers how they are costs nothing.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Every process of Ray counts and reports what only a dashboard shows, and there is none here.
    "RAY_enable_metrics_collection": "false",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_event_stats": "false",
    # Ray starts its workers at niceness 15, and whatever else runs on a machine takes the cores from a training.
    "RAY_worker_niceness": "0",
    # A dozen actors that mostly wait. With as many starting at once as there are cores, a machine of two takes longer
    # to begin, and Ray warns of each pair.
    "RAY_worker_maximum_startup_concurrency": "8",
}
SECONDS_TO_GO = 5.0
"""For the processes of a Ray that has been shut down, before they are killed."""


def start_ray(num_workers: int, allocator: str = "tuned") -> None:
    """Connect to the cluster that RAY_ADDRESS names (as a submitted job does), or start Ray here.

    A Ray started here gets at least one logical CPU more than there are workers, so that Ray Data's tasks never wait
    for a CPU that training holds; it has no dashboard, which would cost ten processes. On a cluster the library itself
    travels with the job.

    Args:
        num_workers: that will train.
        allocator: how the job's processes on a cluster get their memory (`workers.allocator`); here they inherit it.
    Raises:
        ConfigError: RAY_ADDRESS names a place for submitting jobs, not a cluster.
        Stopped: SIGTERM arrived meanwhile.
    """
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith(("http://", "https://")):
        raise ConfigError(
            f"RAY_ADDRESS={address} is where jobs are submitted: run `ray job submit --working-dir . -- python "
            "jobs/train.py …`, or unset RAY_ADDRESS to train on this machine alone"
        )
    for name, setting in (_EVERYWHERE if address else _EVERYWHERE | _HERE).items():
        os.environ.setdefault(name, setting)
    quiet = quiet_ray()
    import ray

    if ray.is_initialized():
        return
    with _our_signals():
        if address:
            package = str(Path(braidrec.__file__).parent)
            environment = {"py_modules": [package], "env_vars": allocation_environment(allocator)}
            ray.init(runtime_env=environment, **quiet.init_arguments)
        else:
            cpus = max(len(os.sched_getaffinity(0)), num_workers + 1)
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet.init_arguments)
            atexit.register(stop_ray)


def stop_ray() -> None:
    """End the Ray that was started here, with every process of it.

    Ray asks its actors to go and does not look whether they did: one that a signal caught at a bad moment stays.
    """
    import ray

    if not ray.is_initialized():
        return
    started = psutil.Process().children(recursive=True)
    ray.shutdown()
    ours = [process for process in started if _is_of_ray(process)]
    _, left = psutil.wait_procs(ours, timeout=SECONDS_TO_GO)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _is_of_ray(process: psutil.Process) -> bool:
    try:
        return process.name().startswith("ray::")
    except psutil.NoSuchProcess:
        return False


@contextmanager
def _our_signals() -> Iterator[None]:
    """`ray.init` puts its own handler in the place of SIGTERM's, which leaves the process with `sys.exit(15)`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as stop:
        if stop.code == signal.SIGTERM:
            raise Stopped(signal.SIGTERM) from None
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
