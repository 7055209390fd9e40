"""The end of a Ray that was started here."""

import subprocess
import sys

import psutil
import pytest
import ray

from braidrec.training import ray_start

_NAMED = """
import ctypes, sys, time
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
print("named", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="processes are named by a call of Linux")
def test_a_process_of_ray_that_does_not_go_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray_start, "SECONDS_TO_GO", 0.2)
    children = [
        subprocess.Popen([sys.executable, "-c", _NAMED, name], stdout=subprocess.PIPE)
        for name in ("ray::Stuck", "somebody")
    ]
    try:
        for child in children:
            assert child.stdout is not None and child.stdout.readline() == b"named\n"
        ray_start.stop_ray()
        stuck, somebody = children
        assert stuck.wait(timeout=10) == -9
        assert psutil.Process(somebody.pid).is_running() and somebody.poll() is None
    finally:
        for child in children:
            child.kill()
            child.communicate()


def test_nothing_is_ended_where_ray_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("there is no Ray to end"))
    ray_start.stop_ray()
