"""The helpers of the models' tests are helpers of the systems' too; and one thread, for the tensors are small."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

MODEL_TESTS = Path(__file__).parents[1]
if str(MODEL_TESTS) not in sys.path:
    sys.path.append(str(MODEL_TESTS))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
