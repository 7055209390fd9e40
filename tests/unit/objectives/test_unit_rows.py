"""Vectors of length one, and what has no direction."""

import numpy as np
import pytest
import torch
from loss_oracles import cosine as naive_cosine
from loss_oracles import random_vectors
from scipy.spatial.distance import cdist

from braidrec.objectives.cosine import cosine, directions, unit_rows


def test_lengths_and_cosines() -> None:
    first, second = random_vectors(1, 5, 3), random_vectors(2, 5, 3)
    torch.testing.assert_close(unit_rows(first).norm(dim=-1), torch.ones(5, dtype=torch.float64))
    wanted = [naive_cosine(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    assert cosine(first, second).tolist() == pytest.approx(wanted, rel=1e-12)
    all_pairs = (unit_rows(first) @ unit_rows(second).T).detach().numpy()
    np.testing.assert_allclose(all_pairs, 1 - cdist(first.detach(), second.detach(), "cosine"), rtol=1e-10)
    assert torch.autograd.gradcheck(unit_rows, (first,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_zero_vector_stays_and_gets_no_gradient(dtype: torch.dtype) -> None:
    vectors = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1e-30, 0.0], [3e-8, 4e-8]], dtype=dtype, requires_grad=True)
    unit = unit_rows(vectors)
    torch.testing.assert_close(unit[[0, 1, 3]], torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.6, 0.8]], dtype=dtype))
    assert unit[2].abs().max() == 0
    unit.sum().backward()
    assert torch.isfinite(vectors.grad).all()
    assert not vectors.grad[[0, 2]].any() and vectors.grad[[1, 3]].all()
    assert cosine(vectors[:1], vectors[1:2]).item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_vectors_of_any_length_have_a_direction_but_for_zeros(dtype: torch.dtype) -> None:
    vectors = torch.tensor([[3e-30, 4e-30], [0.0, 0.0], [-1e30, 0.0], [3e-41, 4e-41]], dtype=dtype)
    wanted = torch.tensor([[0.6, 0.8], [0.0, 0.0], [-1.0, 0.0]], dtype=dtype)
    found = directions(vectors)
    torch.testing.assert_close(found[:3], wanted)
    if dtype == torch.float64:  # in fp32 the last one is no normal number
        torch.testing.assert_close(found[3], wanted[0])
    drawn = random_vectors(3, 6, 4).detach()
    wanted = drawn.numpy() / np.linalg.norm(drawn.numpy(), axis=1, keepdims=True)
    np.testing.assert_allclose(directions(drawn).numpy(), wanted, rtol=1e-12)
