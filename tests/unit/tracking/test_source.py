"""The revision is what git says, and nothing where git says nothing."""

import subprocess
from pathlib import Path

import pytest

from braidrec.tracking.source import UNAVAILABLE, library_revision


@pytest.fixture
def library(tmp_path: Path) -> Path:
    folder = tmp_path / "repository" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("one\n")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "one"]):
        git(tmp_path / "repository", *arguments)
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_clean(library: Path) -> None:
    revision = library_revision(library)
    assert revision.commit == git(library, "rev-parse", "HEAD")
    assert len(revision.commit) == 40
    assert revision.dirty is False


def test_changes_in_the_library_are_flagged_and_others_are_not(library: Path) -> None:
    (library.parent / "notes.txt").write_text("not the library's\n")
    assert library_revision(library).dirty is False
    (library / "new_model.py").write_text("untracked\n")
    assert library_revision(library).dirty is True
    (library / "new_model.py").unlink()
    (library / "__init__.py").write_text("two\n")
    assert library_revision(library).dirty is True


def test_a_copy_inside_somebody_elses_repository_has_no_revision(library: Path) -> None:
    installed = library.parent / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("one\n")
    assert library_revision(installed).commit == UNAVAILABLE
    assert library_revision(installed).dirty is None


def test_no_repository_and_no_git(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "__init__.py").touch()
    assert library_revision(tmp_path).commit == UNAVAILABLE
    monkeypatch.setenv("PATH", str(tmp_path))
    assert library_revision(library).commit == UNAVAILABLE
