"""scripts/environment.sh with a stand-in for Python that records what it was asked to install."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

# Answers the questions that the script asks an interpreter, "makes" a virtual environment and "runs" pip.
STAND_IN = """#!/bin/bash
case "$*" in
    *version_info*) echo {version} ;;
    *"import ensurepip, venv"*) exit {venv_status} ;;
    "-c import pip") exit 0 ;;
    "-m venv --clear "*)
        rm -rf "$4" && mkdir -p "$4/bin" && cp "$0" "$4/bin/python" && echo venv {version} >>"$RECORD" ;;
    "-m pip install "*) echo pip "$*" >>"$RECORD"; echo "Collecting torch"; exit "${{PIP_STATUS:-0}}" ;;
    *) echo "unexpected: $*" >&2; exit 99 ;;
esac
"""


def write_interpreter(file: Path, version: str, venv_status: int = 0) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(STAND_IN.format(version=version, venv_status=venv_status), encoding="utf-8")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


class Checkout:
    """A copy of what the script reads, and a PATH with stand-in interpreters only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.programs = folder / "programs"
        self.record = folder / "record"
        (self.folder / "scripts").mkdir(parents=True)
        for name in ("pyproject.toml", "constraints.txt", "scripts/environment.sh"):
            shutil.copy(REPOSITORY / name, self.folder / name)
        self.programs.mkdir()
        for name in ("bash", "cat", "cmp", "cp", "cut", "dirname", "grep", "mkdir", "rm", "sleep", "tail"):
            found = shutil.which(name)
            assert found is not None, name
            (self.programs / name).symlink_to(found)

    def run(self, kind: str = "run", **settings: str) -> subprocess.CompletedProcess[str]:
        self.record.write_text("", encoding="utf-8")
        return subprocess.run(
            [self.folder / "scripts" / "environment.sh", kind],
            env={"PATH": str(self.programs), "RECORD": str(self.record), **settings},
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )

    def steps(self) -> list[str]:
        """The first word of each thing that the last call had an interpreter do."""
        return [line.split()[0] for line in self.record.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    checkout = Checkout(tmp_path)
    write_interpreter(checkout.programs / "python3", "3.11")
    return checkout


def test_installs_pinned_and_only_once(checkout: Checkout) -> None:
    first = checkout.run()
    assert first.returncode == 0, first.stderr
    assert checkout.steps() == ["venv", "pip"]
    assert "--editable . --constraint constraints.txt" in checkout.record.read_text(encoding="utf-8")
    second = checkout.run()
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert checkout.steps() == []


def test_development_tools_are_added_to_what_is_there_and_serve_both(checkout: Checkout) -> None:
    checkout.run("run")
    assert checkout.run("dev").returncode == 0
    assert checkout.steps() == ["pip"]
    assert "--editable .[dev]" in checkout.record.read_text(encoding="utf-8")
    checkout.run("run")
    assert checkout.steps() == []


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_install_again(checkout: Checkout, changed: str) -> None:
    checkout.run()
    with (checkout.folder / changed).open("a", encoding="utf-8") as file:
        file.write("# another line\n")
    assert checkout.run().returncode == 0
    assert checkout.steps() == ["pip"]


def test_failed_installation_is_said_and_done_again(checkout: Checkout) -> None:
    failed = checkout.run(PIP_STATUS="3")
    assert failed.returncode == 1
    assert "pip failed with status 3; the whole output is in .venv/install.log" in failed.stderr
    assert "Collecting torch" in failed.stderr
    assert checkout.run().returncode == 0
    assert checkout.steps() == ["pip"]


def test_moved_checkout_gets_a_new_environment(checkout: Checkout) -> None:
    checkout.run()
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("moved"))
    result = checkout.run()
    assert result.returncode == 0, result.stderr
    assert "Remaking .venv" in result.stdout
    assert checkout.steps() == ["venv", "pip"]


def test_broken_interpreter_inside_the_environment_is_replaced(checkout: Checkout) -> None:
    checkout.run()
    (checkout.folder / ".venv/bin/python").unlink()
    assert checkout.run().returncode == 0
    assert checkout.steps() == ["venv", "pip"]


def test_another_python_is_honoured_and_then_kept(checkout: Checkout, tmp_path: Path) -> None:
    checkout.run()
    other = tmp_path / "elsewhere" / "python"
    write_interpreter(other, "3.12")
    assert checkout.run(PYTHON=str(other)).returncode == 0
    assert checkout.record.read_text(encoding="utf-8").startswith("venv 3.12")
    # Without PYTHON the environment that is there stays, whatever python3 is now.
    write_interpreter(checkout.programs / "python3", "3.13")
    assert checkout.run().returncode == 0
    assert checkout.steps() == []


@pytest.mark.parametrize(
    ("version", "venv_status", "wanted"),
    [
        ("3.10", 0, "python3 is Python 3.10, but BraidRec needs 3.11 or 3.12"),
        ("3.13", 0, "python3 is Python 3.13, but BraidRec needs 3.11 or 3.12"),
        ("3.12", 1, "apt install python3.12-venv"),
    ],
)
def test_unsuitable_python3_is_refused_with_the_mend(
    checkout: Checkout, version: str, venv_status: int, wanted: str
) -> None:
    write_interpreter(checkout.programs / "python3", version, venv_status)
    result = checkout.run()
    assert result.returncode == 1
    assert wanted in result.stderr
    assert "make PYTHON=/path/to/python3.11" in result.stderr
    assert not (checkout.folder / ".venv").exists()


def test_a_suitable_interpreter_on_the_path_is_named(checkout: Checkout) -> None:
    write_interpreter(checkout.programs / "python3", "3.13")
    write_interpreter(checkout.programs / "python3.12", "3.12")
    result = checkout.run()
    assert result.returncode == 1
    assert "make PYTHON=python3.12" in result.stderr


def test_missing_interpreter_is_named(checkout: Checkout) -> None:
    result = checkout.run(PYTHON="python9")
    assert result.returncode == 1
    assert "there is no interpreter python9" in result.stderr


@pytest.mark.parametrize("name", ["with space", "it's", "a$b", "a(b)", "a;b", "back\\slash"])
def test_a_path_from_which_ray_could_not_start_workers_is_refused(checkout: Checkout, name: str) -> None:
    checkout.folder = checkout.folder.rename(checkout.folder.with_name(name))
    result = checkout.run()
    assert result.returncode == 1
    assert f"move the checkout out of {checkout.folder}" in result.stderr
    assert checkout.steps() == []


def test_other_unusual_signs_in_the_path_are_fine(checkout: Checkout) -> None:
    checkout.folder = checkout.folder.rename(checkout.folder.with_name("größe-1.0_a+b@c,d=e%"))
    assert checkout.run().returncode == 0


def test_settings_of_the_surrounding_shell_do_not_redirect_pip(checkout: Checkout) -> None:
    source = (checkout.programs / "python3").read_text(encoding="utf-8")
    marked = source.replace("echo pip", 'echo pip "${PIP_USER:-}${PYTHONPATH:-}${PIP_TARGET:-}"')
    (checkout.programs / "python3").write_text(marked, encoding="utf-8")
    checkout.run(PIP_USER="1", PYTHONPATH="/theirs", PIP_TARGET="/theirs")
    assert "pip  -m pip install" in checkout.record.read_text(encoding="utf-8")
