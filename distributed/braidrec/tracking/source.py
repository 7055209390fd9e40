"""Which revision of the library's code is running."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import braidrec

UNAVAILABLE = "unavailable"


@dataclass(frozen=True, kw_only=True)
class Revision:
    """A git commit, or "unavailable"; whether the library's own files differ from it (None: not known)."""

    commit: str
    dirty: bool | None


def library_revision(folder: Path | None = None) -> Revision:
    """The commit that holds `folder` (by default the installed library).

    "unavailable" unless git itself says that it tracks the folder's `__init__.py`: an installed copy inside somebody
    else's repository, or an uploaded working directory without `.git`, has no revision, and none is guessed.
    Dirty counts changed and untracked files of the library only; the configuration is stored with the run anyway.
    """
    folder = folder or Path(braidrec.__file__).parent
    unknown = Revision(commit=UNAVAILABLE, dirty=None)
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return unknown
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", ".")
    if commit is None or changes is None:
        return unknown
    return Revision(commit=commit.strip(), dirty=bool(changes.strip()))


def _git(folder: Path, *arguments: str) -> str | None:
    """Output of a git command, None where git is missing, fails or does not answer within ten seconds."""
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout
