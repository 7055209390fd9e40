"""Ray's own chatter stays in Ray's log files; what a worker raises still arrives in the driver.

A two-worker training with one Ray Data set printed about seventy lines by itself under Ray 2.60: Train's controller and
workers, Data's plans and progress bars, a C++ warning of the preemption watcher, deprecation warnings between Ray's own
parts, the token set-up, "Started a local Ray instance". Nearly all of them are output of other processes that the
driver copies; `log_to_driver=False` ends that, and they stay in /tmp/ray/session_latest/logs.
"""

import logging
import os
from dataclasses import dataclass
from typing import Any

_ENVIRONMENT = {
    # Ray Data's progress bars, in the driver and in the actors that run a plan for the workers.
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    # The behaviour of Ray 2.60 and later; before, a worker without a GPU warns that it will come.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
}
# Says on every start of a local cluster that tokens are used, as a warning.
_TOKEN_LOGGER = "ray._private.authentication.authentication_token_setup"


@dataclass(frozen=True, kw_only=True)
class QuietRay:
    """How to start Ray."""

    init_arguments: dict[str, Any]
    """For `ray.init`."""
    worker_environment: dict[str, str]
    """For `runtime_env={"env_vars": …}` of `ray.init` or of a trainer."""


def quiet_ray(*, verbose: bool = False) -> QuietRay:
    """Make Ray print little. Call it before `ray` is imported: Ray reads most of this on import.

    What the user has put into the environment stands. Ray's warnings in the driver are still shown, and an exception in
    a worker is raised by `trainer.fit()` with the worker's traceback.

    Args:
        verbose: leave Ray as it is, workers' output included.
    """
    if verbose:
        return QuietRay(init_arguments={}, worker_environment={})
    for name, setting in _ENVIRONMENT.items():
        os.environ.setdefault(name, setting)
    logging.getLogger(_TOKEN_LOGGER).setLevel(logging.ERROR)
    return QuietRay(
        init_arguments={"logging_level": logging.WARNING, "log_to_driver": False},
        worker_environment={name: os.environ[name] for name in _ENVIRONMENT},
    )
