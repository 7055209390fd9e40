"""For all tests: the same surroundings for everybody."""

from collections.abc import Iterator

import pytest

TERMINAL = (
    "COLUMNS", "LINES", "TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE",
    "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PY_COLORS", "PYTHON_COLORS",
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def no_terminal() -> Iterator[None]:
    """What is printed, here and by the processes that tests start, does not depend on where the tests are run."""
    with pytest.MonkeyPatch.context() as patch:
        for name in TERMINAL:
            patch.delenv(name, raising=False)
        yield
