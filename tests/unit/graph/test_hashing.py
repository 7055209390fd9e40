"""Random numbers as a function of what they are for."""

import numpy as np
import torch

from braidrec.graph.hashing import stream_key, uniform, uniform_tensor


def test_tensors_get_the_numbers_that_arrays_get() -> None:
    rng = np.random.default_rng(5)
    numbers = np.concatenate([[0, 1, 2, 2**62, 2**63 - 1], rng.integers(0, 2**63 - 1, 10_000)])
    for key in (np.uint64(0), np.uint64(2**64 - 1), stream_key(3, "dropout")):
        drawn = uniform_tensor(key, torch.from_numpy(numbers).reshape(5, -1)).reshape(-1)
        np.testing.assert_array_equal(drawn.numpy(), uniform(key, numbers))
    assert float(drawn.min()) > 0 and float(drawn.max()) < 1
