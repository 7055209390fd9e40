"""Sampled propagation estimates full propagation without bias: a z-test over many draws.

The graph is drawn in many disjoint copies at once, so that one call gives as many independent draws as there are
copies, and this is repeated for several step seeds. For every seed node, column and level the mean of the draws is
compared with the dense fp64 product; z = (mean − exact) / standard error is close to N(0, 1) for the thousands of
draws that are taken. The limit is Bonferroni-corrected over all comparisons of a test: an unbiased sampler exceeds
it with probability `FALSE_ALARM` in a test. Seeds are fixed, so the outcome does not vary from run to run.

The second half shows that the test has teeth: the wrong scales that one meets in practice are rejected.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from graph_oracles import CPU, adjacency, both_directions, normalised, random_edges, random_pairs, relation_of, rows
from numpy.typing import NDArray
from scipy.stats import norm

from braidrec.graph.hop import Hop, Neighbourhood
from braidrec.graph.neighbourhood import HopSpec, SampledSubgraph, hop_specs
from braidrec.graph.propagate import propagate
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.graph.structure import Structure

FALSE_ALARM = 1e-4
COPIES, CALLS, DIM = 200, 40, 2
U, N = 9, 16
PAIRS = sorted(set(random_pairs(21, U, N - U, 60)))
INTERACTION_EDGES = both_directions(PAIRS, U)
VIEWED_EDGES = random_edges(22, range(U, N), 24)
EDGES = {INTERACTIONS: INTERACTION_EDGES, "also_viewed": VIEWED_EDGES}
DENSE = {name: adjacency(edges, N) for name, edges in EDGES.items()}
TARGETS = PAIRS[::5]
SEEDS = [0, 1, 2, 4, 9, 10, 12]
H = rows(23, N, DIM)
SAMPLERS = ["neighbour", "labor"]
Repair = Callable[[Hop], Hop]


def in_all_copies(edges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(source + copy * N, destination + copy * N) for copy in range(COPIES) for source, destination in edges]


RELATIONS = {
    name: relation_of(name, in_all_copies(edges), COPIES * N, symmetric=name == INTERACTIONS)
    for name, edges in EDGES.items()
}
ALL_SEEDS = torch.tensor([copy * N + seed for copy in range(COPIES) for seed in SEEDS])
ALL_ROWS = H.repeat(COPIES, 1)


def target_ids(relation: Relation) -> torch.Tensor:
    sources, destinations = np.array(in_all_copies(both_directions(TARGETS, U))).T
    return torch.from_numpy(relation.edge_ids(sources, destinations))


def draws(
    compute: Callable[[Neighbourhood], list[torch.Tensor]],
    chain: Sequence[HopSpec],
    sampler: str,
    *,
    exclude: torch.Tensor | None = None,
    spoil: Repair | None = None,
) -> NDArray[np.float64]:
    """`[draws, levels, seeds, DIM]`; `spoil` puts a mistake into every hop."""
    source = SampledSubgraph(RELATIONS, device=CPU, kernel="dgl", sampler=sampler)
    found = []
    excluded = None if exclude is None else {INTERACTIONS: exclude}
    for step_seed in np.random.default_rng(24).integers(0, 2**31 - 1, CALLS).tolist():
        neighbourhood = source.neighbourhood(chain, ALL_SEEDS, step_seed=step_seed, exclude=excluded)
        if spoil is not None:
            neighbourhood = replace(neighbourhood, hops=tuple(spoil(hop) for hop in neighbourhood.hops))
        levels = torch.stack(compute(neighbourhood)).double().numpy()
        found.append(levels.reshape(len(levels), COPIES, len(SEEDS), DIM).swapaxes(0, 1))
    return np.concatenate(found)


def lightgcn(neighbourhood: Neighbourhood) -> list[torch.Tensor]:
    return propagate(neighbourhood, ALL_ROWS[neighbourhood.input_nodes])[1:]


def largest_z(drawn: NDArray[np.float64], exact: NDArray[np.float64]) -> tuple[float, float]:
    """The largest |z|, and the limit for that number of comparisons.

    Where nothing is drawn, because every degree is within the fan-out, a rounding error of fp32 takes the place of the
    standard error, so that such an entry must be exact.
    """
    error = drawn.std(0, ddof=1) / np.sqrt(len(drawn))
    assert (error > 1e-6).mean() > 0.5, "hardly anything was sampled: the test would show nothing"
    z = np.abs(drawn.mean(0) - exact) / np.maximum(error, 1e-6)
    return float(z.max()), float(norm.isf(FALSE_ALARM / (2 * z.size)))


def at_seeds(matrices: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """`[levels, seeds, DIM]`: the products of the first l matrices with the rows, l = 1 … L."""
    value, found = H.double().numpy(), []
    for matrix in matrices:
        value = matrix @ value
        found.append(value[SEEDS])
    return np.stack(found)


WHOLE = normalised(DENSE[INTERACTIONS])
WITHOUT_TARGETS = normalised(
    adjacency(sorted(set(INTERACTION_EDGES) - set(both_directions(TARGETS, U))), N), degrees_of=DENSE[INTERACTIONS]
)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("fan_outs", [[2], [3, 1]])
def test_one_to_three_hops(sampler: str, fan_outs: list[int]) -> None:
    drawn = draws(lightgcn, hop_specs([INTERACTIONS] * 3, fan_outs), sampler)
    z, limit = largest_z(drawn, at_seeds([WHOLE] * 3))
    assert z < limit


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_without_the_target_edges(sampler: str) -> None:
    # The estimate is of the graph without them, normalised by the degrees of the whole graph.
    exclude = target_ids(RELATIONS[INTERACTIONS])
    assert int((exclude < 0).sum()) == 0
    drawn = draws(lightgcn, hop_specs([INTERACTIONS] * 2, [2, 3]), sampler, exclude=exclude)
    z, limit = largest_z(drawn, at_seeds([WITHOUT_TARGETS] * 2))
    assert z < limit
    z, limit = largest_z(drawn, at_seeds([WHOLE] * 2))
    assert z > 3 * limit


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("normalise", ["symmetric", "mean", "sum"])
def test_directed_relation_and_mixed_chain(sampler: str, normalise: str) -> None:
    def compute(neighbourhood: Neighbourhood) -> list[torch.Tensor]:
        h, levels = ALL_ROWS[neighbourhood.input_nodes], []
        for level, hop in enumerate(neighbourhood.hops, start=1):
            h = hop.own(h) + hop.aggregate(h, normalise=normalise)
            levels.append(neighbourhood.at_seeds(h, level))
        return levels

    chain = ["also_viewed", INTERACTIONS, "also_viewed"]
    drawn = draws(compute, hop_specs(chain, [2]), sampler)
    z, limit = largest_z(drawn, at_seeds([np.eye(N) + normalised(DENSE[name], normalise) for name in chain]))
    assert z < limit


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_edge_weights(sampler: str) -> None:
    ordered = sorted((destination, source) for source, destination in set(INTERACTION_EDGES))
    weight = rows(25, len(ordered), 1).flatten()
    matrix = np.zeros((N, N))
    matrix[tuple(np.array(ordered).T)] = weight.double().numpy()

    def compute(neighbourhood: Neighbourhood) -> list[torch.Tensor]:
        (hop,) = neighbourhood.hops
        edge_weight = weight[hop.edges()[2] % len(ordered)]  # the copies follow each other in the relation's order
        return [hop.aggregate(ALL_ROWS[neighbourhood.input_nodes], edge_weight)]

    drawn = draws(compute, hop_specs([INTERACTIONS], [2]), sampler)
    z, limit = largest_z(drawn, at_seeds([matrix * WHOLE]))
    assert z < limit


# --- mistakes that must be caught


def realised_scale(hop: Hop) -> Hop:
    """d / (number of edges that are there) in place of d / k."""
    count = hop.structure.indptr.diff().clamp(min=1)
    return replace(hop, scale=(hop.relation.in_degree[hop.dst_nodes] / count).clamp(min=1.0))


def no_scale(hop: Hop) -> Hop:
    return replace(hop, scale=None)


def sampled_degrees(hop: Hop) -> Hop:
    """A hop normalised by the degrees of the drawn edges, as DGL's GraphConv on a block does."""
    in_degree = hop.structure.indptr.diff().clamp(min=1).float()
    out_degree = torch.bincount(hop.structure.indices, minlength=hop.num_src).clamp(min=1).float()
    spoilt = replace(hop, scale=None)
    spoilt.__dict__["src_scale"] = out_degree.pow(-0.5).unsqueeze(1)
    spoilt.__dict__["dst_scale"] = in_degree.pow(-0.5).unsqueeze(1)
    return spoilt


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("spoil", [no_scale, sampled_degrees])
def test_wrong_normalisation_is_caught(sampler: str, spoil: Repair) -> None:
    drawn = draws(lightgcn, hop_specs([INTERACTIONS] * 2, [2]), sampler, spoil=spoil)
    z, limit = largest_z(drawn, at_seeds([WHOLE] * 2))
    assert z > 3 * limit


def test_scale_by_realised_count_is_caught_in_labor() -> None:
    drawn = draws(lightgcn, hop_specs([INTERACTIONS], [2]), "labor", spoil=realised_scale)
    z, limit = largest_z(drawn, at_seeds([WHOLE]))
    assert z > 1.5 * limit


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_scale_by_the_count_after_exclusion_is_caught(sampler: str) -> None:
    exclude = target_ids(RELATIONS[INTERACTIONS])
    drawn = draws(lightgcn, hop_specs([INTERACTIONS], [2]), sampler, exclude=exclude, spoil=realised_scale)
    z, limit = largest_z(drawn, at_seeds([WITHOUT_TARGETS]))
    assert z > 1.5 * limit


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_hops_that_draw_the_same_are_caught(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SampledSubgraph.neighbourhood

    def one_seed_for_all_hops(self, chain, seeds, *, step_seed, exclude=None):
        draw = self.draw
        monkeypatch.setattr(self, "draw", lambda relation, nodes, k, _, e: draw(relation, nodes, k, step_seed, e))
        found = original(self, chain, seeds, step_seed=step_seed, exclude=exclude)
        monkeypatch.setattr(self, "draw", draw)
        return found

    monkeypatch.setattr(SampledSubgraph, "neighbourhood", one_seed_for_all_hops)
    drawn = draws(lightgcn, hop_specs([INTERACTIONS] * 3, [2]), sampler)
    z, limit = largest_z(drawn, at_seeds([WHOLE] * 3))
    assert z > 1.5 * limit


def test_the_limit_is_bonferronis() -> None:
    rng = np.random.default_rng(0)
    z, limit = largest_z(rng.normal(size=(2000, 1, 50, 2)), np.zeros((1, 50, 2)))
    assert limit == pytest.approx(4.89, abs=0.01)  # two-sided 1e-4 / 100
    assert z < limit
    assert largest_z(rng.normal(0.2, 1, size=(2000, 1, 50, 2)), np.zeros((1, 50, 2)))[0] > limit


def test_copies_do_not_touch() -> None:
    structure: Structure = RELATIONS[INTERACTIONS].structure
    assert torch.equal(structure.indices.long() // N, structure.destinations // N)
