"""The same rows and the same filled vectors on a CUDA device as on the CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from feature_folders import table_of

from braidrec.features.impute import Surroundings, fill_by_propagation, fill_with_neighbours
from braidrec.graph.build import build_interactions

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

U, I = 30, 40  # noqa: E741
RANDOM = np.random.default_rng(1)
DENSE = RANDOM.standard_normal((I, 16)).astype(np.float32)
PRESENT = [item for item in range(I) if item % 3]


def test_rows(tmp_path: Path) -> None:
    table = table_of(tmp_path, DENSE, PRESENT)
    values, present = table.rows(torch.tensor([3, 4, 4], device="cuda"))
    assert values.device.type == present.device.type == "cuda"
    np.testing.assert_array_equal(values.cpu().numpy(), np.stack([np.zeros(16), DENSE[4], DENSE[4]]))
    assert present.tolist() == [False, True, True]


@pytest.mark.parametrize("how", ["neighbours", "propagation"])
def test_filled_vectors(tmp_path: Path, how: str) -> None:
    relation = build_interactions(RANDOM.integers(0, U, 200), RANDOM.integers(0, I, 200), U, I)
    filled = []
    for device in ("cpu", "cuda"):
        cache = tmp_path / device
        source = table_of(cache, DENSE, PRESENT)
        around = Surroundings(relation=relation, first_node=U, device=torch.device(device))
        if how == "propagation":
            filled.append(fill_by_propagation(source, around, cache=cache))
        else:
            filled.append(fill_with_neighbours(source, around, hops=2, fit_on=np.ones(I, np.bool_), cache=cache))
    np.testing.assert_allclose(filled[1].values, filled[0].values, rtol=1e-4, atol=1e-5)
