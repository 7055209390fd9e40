"""Which Python a submitted job runs with. Standard library only, since the wrong Python has nothing else."""

import importlib.util
import os
import shlex
import sys
from pathlib import Path


def continue_with_rays_python() -> None:
    """Inside a job submitted to Ray, start again with Ray's own interpreter if this one has no Ray.

    `ray job submit -- python jobs/train.py` runs the first `python` on the PATH of the shell in which the head was
    started. Where no environment was activated there, that is one in which nothing is installed.
    """
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ or importlib.util.find_spec("ray") is not None:
        return
    interpreter = rays_python(os.getppid())
    if interpreter is not None:
        sys.stdout.flush()
        os.execv(interpreter, [interpreter, *sys.orig_argv[1:]])


def rays_python(process: int, processes: Path = Path("/proc")) -> str | None:
    """The interpreter with which the nearest raylet above `process` starts workers.

    Args:
        process: where to begin; a job is a descendant of its node's raylet.
        processes: the kernel's process information; a system without it knows no answer.
    """
    while process > 1:
        try:
            arguments = (processes / str(process) / "cmdline").read_text(encoding="utf-8").split("\0")
            status = (processes / str(process) / "status").read_text(encoding="utf-8")
        except OSError:
            return None
        if Path(arguments[0]).name == "raylet":
            return _worker_interpreter(arguments)
        process = int(status.partition("\nPPid:")[2].split(maxsplit=1)[0])
    return None


def _worker_interpreter(raylet_arguments: list[str]) -> str | None:
    for argument in raylet_arguments:
        name, _, command = argument.partition("=")
        if name == "--python_worker_command":
            return shlex.split(command)[0]
    return None
