"""Small tensors only: one thread is faster here, and makes sums and DGL's draws the same on every machine."""

from collections.abc import Iterator

import pytest
from process_pair import Pair, Trio

from braidrec.graph.dgl_import import dgl
from braidrec.training.environment import use_threads


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = dgl.utils.get_num_threads()
    use_threads(1)
    yield
    use_threads(before)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two processes in one group, for all tests of a file."""
    processes = Pair(tmp_path_factory.mktemp("pair"))
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trio]:
    """Three of them."""
    processes = Trio(tmp_path_factory.mktemp("trio"))
    yield processes
    processes.close()
