"""Scores and shares of edges against loops over them, gradients by finite differences."""

import numpy as np
import pytest
import torch
from torch import Tensor

from braidrec.graph.attention import end_products, softmax_over_sources
from braidrec.graph.kernels import KERNELS, weighted_sum_sources
from braidrec.graph.structure import Structure

DIM = 3
EDGES = ((2, 0), (0, 0), (1, 2), (3, 2), (0, 2), (3, 3))
"""(source, destination), by destination. Destination 1 has none, and source 4 neither."""
NUM_SRC, NUM_DST = 5, 4


def structure(index_type: torch.dtype = torch.int32) -> Structure:
    return Structure(
        torch.tensor([0, 2, 2, 5, 6], dtype=index_type), torch.tensor([s for s, _ in EDGES], dtype=index_type), NUM_SRC
    )


def ends() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    sources = torch.randn(NUM_SRC, DIM, generator=generator, dtype=torch.float64)
    return sources, torch.randn(NUM_DST, DIM, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("index_type", [torch.int32, torch.int64])
@pytest.mark.parametrize("kernel", KERNELS)
def test_products_of_the_ends(kernel: str, index_type: torch.dtype) -> None:
    sources, destinations = ends()
    found = end_products(structure(index_type), sources, destinations, kernel)
    wanted = [sum(float(sources[s, c] * destinations[d, c]) for c in range(DIM)) for s, d in EDGES]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shift", [0.0, 1e4, -1e4])
def test_shares_among_the_sources_of_a_destination(kernel: str, shift: float) -> None:
    """Adding the same number to all scores changes nothing, however large it is."""
    scores = np.array([0.3, -1.2, 2.0, 0.1, 0.0, 5.0])
    found = softmax_over_sources(structure(), torch.from_numpy(scores + shift), kernel).numpy()
    for edge, (_, destination) in enumerate(EDGES):
        among = [other for other, (_, at) in enumerate(EDGES) if at == destination]
        wanted = np.exp(scores[edge]) / sum(np.exp(scores[other]) for other in among)
        assert found[edge] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradients(kernel: str) -> None:
    """Of one step of attention as models put it together, through the scores as well as the rows that are summed."""
    edges = structure()

    def attend(sources: Tensor, destinations: Tensor) -> Tensor:
        shares = softmax_over_sources(edges, end_products(edges, sources, destinations, kernel), kernel)
        return weighted_sum_sources(edges, sources, shares, kernel)

    assert torch.autograd.gradcheck(attend, [end.requires_grad_() for end in ends()])


@pytest.mark.parametrize("kernel", KERNELS)
def test_without_any_edge(kernel: str) -> None:
    none = Structure(torch.zeros(NUM_DST + 1, dtype=torch.int32), torch.empty(0, dtype=torch.int32), NUM_SRC)
    sources, destinations = (end.requires_grad_() for end in ends())
    shares = softmax_over_sources(none, end_products(none, sources, destinations, kernel), kernel)
    assert shares.shape == (0,)
    out = weighted_sum_sources(none, sources, shares, kernel)
    assert torch.equal(out, torch.zeros(NUM_DST, DIM, dtype=torch.float64))
    out.sum().backward()
    assert float(sources.grad.abs().sum()) == 0.0
