"""The two processes of the training tests, for losses that look at other ranks' rows."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TRAINING_TESTS = Path(__file__).parents[1] / "training"


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if str(TRAINING_TESTS) not in sys.path:
        sys.path.append(str(TRAINING_TESTS))
    from process_pair import Pair

    processes = Pair(tmp_path_factory.mktemp("pair"))
    yield processes
    processes.close()
