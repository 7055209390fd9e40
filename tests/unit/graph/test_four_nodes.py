"""The smallest interesting graph, by hand.

Users 0 and 1, items 0 and 1 (nodes 2 and 3); user 0 took both items, user 1 took item 1. Degrees 2, 1, 1, 2, so with
s = 1/√2 the normalised adjacency is s between nodes 0 and 2, 1/2 between 0 and 3, s between 1 and 3.
"""

import numpy as np
import pytest
import torch

from braidrec.graph.build import build_interactions
from braidrec.graph.neighbourhood import FullGraph, NeighbourhoodSource, SampledSubgraph, hop_specs
from braidrec.graph.propagate import combine_levels, propagate
from braidrec.graph.relation import INTERACTIONS

CPU = torch.device("cpu")
RELATION = build_interactions(np.array([0, 0, 1]), np.array([0, 1, 1]), 2, 2)
LEVELS = torch.tensor(
    [
        [1.0, 2.0, 3.0, 4.0],
        [4.12132034, 2.82842712, 0.70710678, 1.91421356],  # 3s + 4/2, 4s, s, 1/2 + 2s
        [1.45710678, 1.35355339, 2.91421356, 4.06066017],  # 1/2 + 1.914…/2, 1.914…s, 4.121…s, 4.121…/2 + 2.828…s
    ]
)
READOUTS = {
    "last": LEVELS[2].unsqueeze(1),
    "concat": LEVELS.T,
    "sum": torch.tensor([6.57842712, 6.18198052, 6.62132034, 9.97487373]).unsqueeze(1),
    "mean": torch.tensor([2.19280904, 2.06066017, 2.20710678, 3.32495791]).unsqueeze(1),
}

SOURCES = {
    "full-dgl": FullGraph({INTERACTIONS: RELATION}, device=CPU, kernel="dgl"),
    "full-torch": FullGraph({INTERACTIONS: RELATION}, device=CPU, kernel="torch"),
    "neighbour-dgl": SampledSubgraph({INTERACTIONS: RELATION}, device=CPU, kernel="dgl"),
    "labor-torch": SampledSubgraph({INTERACTIONS: RELATION}, device=CPU, kernel="torch", sampler="labor"),
}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> NeighbourhoodSource:
    return SOURCES[request.param]


def at(source: NeighbourhoodSource, seeds: list[int], layers: int, start: torch.Tensor) -> list[torch.Tensor]:
    chain = hop_specs([INTERACTIONS] * layers, [-1])
    neighbourhood = source.neighbourhood(chain, torch.tensor(seeds))
    inputs = start if neighbourhood.input_nodes is None else start[neighbourhood.input_nodes]
    return propagate(neighbourhood, inputs)


def test_stored_by_destination_with_sorted_sources() -> None:
    assert RELATION.indptr.tolist() == [0, 2, 3, 4, 6]
    assert RELATION.indices.tolist() == [2, 3, 3, 0, 0, 1]
    assert RELATION.in_degree.tolist() == RELATION.out_degree.tolist() == [2, 1, 1, 2]


def test_two_layers(source: NeighbourhoodSource) -> None:
    levels = at(source, [0, 1, 2, 3], 2, LEVELS[0].unsqueeze(1))
    torch.testing.assert_close(torch.cat(levels, dim=1).T, LEVELS)


@pytest.mark.parametrize("readout", READOUTS)
def test_readouts_at_seeds_in_their_order(source: NeighbourhoodSource, readout: str) -> None:
    levels = at(source, [3, 0], 2, LEVELS[0].unsqueeze(1))
    torch.testing.assert_close(combine_levels(levels, readout), READOUTS[readout][[3, 0]])


def test_gradient_of_a_sum_of_levels(source: NeighbourhoodSource) -> None:
    # Row of user 0 in I + Â + Â²: Â² has s² + 1/4 on the diagonal and s/2 for user 1.
    start = LEVELS[0].unsqueeze(1).requires_grad_()
    combine_levels(at(source, [0], 2, start), "sum").sum().backward()
    torch.testing.assert_close(start.grad, torch.tensor([[1.75], [0.35355339], [0.70710678], [0.5]]))


def test_gradient_of_a_score(source: NeighbourhoodSource) -> None:
    # After one layer ⟨user 0, item 1⟩ = (s x2 + x3 / 2)(x0 / 2 + s x1) = 4.1213… · 1.9142….
    start = LEVELS[0].unsqueeze(1).requires_grad_()
    user, item = at(source, [0, 3], 1, start)[-1]
    score = (user * item).sum()
    torch.testing.assert_close(score, torch.tensor(7.88908730))
    score.backward()
    torch.testing.assert_close(start.grad, torch.tensor([[2.06066017], [2.91421356], [1.35355339], [0.95710678]]))


@pytest.mark.parametrize(("normalise", "wanted"), [("sum", [7.0, 4.0, 1.0, 3.0]), ("mean", [3.5, 4.0, 1.0, 1.5])])
def test_other_normalisations(source: NeighbourhoodSource, normalise: str, wanted: list[float]) -> None:
    neighbourhood = source.neighbourhood(hop_specs([INTERACTIONS], [-1]), torch.arange(4))
    start = LEVELS[0].unsqueeze(1)
    inputs = start if neighbourhood.input_nodes is None else start[neighbourhood.input_nodes]
    torch.testing.assert_close(
        neighbourhood.hops[0].aggregate(inputs, normalise=normalise).flatten(), torch.tensor(wanted)
    )
