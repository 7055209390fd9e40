"""Finding Ray's interpreter among the processes above a job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from braidrec.interpreter import rays_python

LIBRARY = Path(__file__).parents[2] / "distributed"


def add_process(folder: Path, process: int, parent: int, *arguments: str) -> None:
    place = folder / str(process)
    place.mkdir()
    (place / "cmdline").write_bytes(b"\0".join(argument.encode() for argument in (*arguments, "")))
    (place / "status").write_text(
        f"Name:\tx\nUmask:\t0022\nPid:\t{process}\nPPid:\t{parent}\nUid:\t0\n", encoding="utf-8"
    )


@pytest.fixture
def processes(tmp_path: Path) -> Path:
    command = "--python_worker_command='/with space/bin/python3' setup_worker.py --session=1"
    add_process(tmp_path, 10, 1, "/site/ray/core/raylet", "--num=1", command)
    add_process(tmp_path, 20, 10, "ray::JobSupervisor")
    add_process(tmp_path, 30, 20, "/bin/sh", "-c", "python jobs/train.py")
    add_process(tmp_path, 40, 1, "/bin/bash")
    return tmp_path


def test_the_raylet_above_a_job_is_found(processes: Path) -> None:
    assert rays_python(30, processes) == "/with space/bin/python3"


def test_elsewhere_there_is_no_answer(processes: Path, tmp_path: Path) -> None:
    assert rays_python(40, processes) is None
    assert rays_python(30, tmp_path / "no-such-folder") is None
    add_process(processes, 50, 60, "/bin/bash")  # its parent has ended meanwhile
    assert rays_python(50, processes) is None


@pytest.mark.parametrize(
    ("in_job", "has_ray", "wanted"), [(True, False, "again"), (True, True, "here"), (False, False, "here")]
)
def test_it_starts_again_only_in_a_job_whose_python_has_no_ray(
    tmp_path: Path, in_job: bool, has_ray: bool, wanted: str
) -> None:
    other = tmp_path / "other-python"
    other.write_text('#!/bin/sh\necho again "$@"\n', encoding="utf-8")
    other.chmod(0o755)
    if has_ray:
        (tmp_path / "ray.py").touch()
    script = tmp_path / "job.py"
    script.write_text(
        f"import sys; sys.path[:0] = [{str(LIBRARY)!r}, {str(tmp_path)!r}]\n"
        "from braidrec import interpreter\n"
        f"interpreter.rays_python = lambda process: {str(other)!r}\n"
        "interpreter.continue_with_rays_python()\n"
        "print('here', *sys.argv)\n",
        encoding="utf-8",
    )
    environment = {"PATH": os.environ["PATH"], **({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"} if in_job else {})}
    # -S: without this environment's packages, as a Python in which nothing is installed.
    command = [sys.executable, "-S", str(script), "--set", "a b"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, check=True)
    assert result.stdout.split()[0] == wanted
    assert result.stdout.strip().endswith(f"{script} --set a b")
