"""Sampled hops: −1 is the full graph, draws have the promised form, seeds decide them, target edges can be left out.

That their expectation is right is the subject of test_unbiased.py.
"""

import numpy as np
import pytest
import torch
from graph_oracles import (
    CPU,
    adjacency,
    assert_near,
    both_directions,
    normalised,
    random_edges,
    random_pairs,
    relation_of,
    rows,
)

from braidrec.graph.build import build_interactions
from braidrec.graph.hop import Hop
from braidrec.graph.neighbourhood import FullGraph, HopSpec, SampledSubgraph, hop_specs
from braidrec.graph.propagate import propagate
from braidrec.graph.relation import INTERACTIONS, Relation

U, N, DIM = 40, 70, 4
PAIRS = random_pairs(11, U, N - U, 300)
EDGES = {
    INTERACTIONS: both_directions(PAIRS, U),
    "also_viewed": random_edges(12, range(U, N), 150),
    "social": random_edges(13, range(U), 150),
}
DENSE = {name: adjacency(edges, N) for name, edges in EDGES.items()}
RELATIONS = {name: relation_of(name, edges, N, symmetric=name == INTERACTIONS) for name, edges in EDGES.items()}
SEEDS = torch.tensor([50, 3, N - 1, 0, 45, U - 1, 12, 7, 41, 66])  # isolated ones among them, in no order
SAMPLERS = ["neighbour", "labor"]
CHAINS = [
    (INTERACTIONS,),
    (INTERACTIONS,) * 2,
    (INTERACTIONS,) * 3,
    ("also_viewed", INTERACTIONS),
    (INTERACTIONS, "social"),
    ("also_viewed", "also_viewed"),
]


def sampled(sampler: str = "neighbour", kernel: str = "dgl", relations: dict | None = None) -> SampledSubgraph:
    return SampledSubgraph(relations or RELATIONS, device=CPU, kernel=kernel, sampler=sampler)


def global_edges(hop: Hop) -> list[tuple[int, int, int]]:
    """`(source node, destination node, edge id)`, after checking that the relation has just that edge there."""
    sources, destinations, ids = hop.edges()
    triples = list(
        zip(hop.src_nodes[sources].tolist(), hop.dst_nodes[destinations].tolist(), ids.tolist(), strict=True)
    )
    relation = hop.relation
    for source, destination, edge in triples:
        assert relation.indices[edge] == source
        assert relation.indptr[destination] <= edge < relation.indptr[destination + 1]
    return triples


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_drawn_from_int32_as_from_int64(sampler: str) -> None:
    """A graph large enough for the crash of DGL's own blocks over int32 graphs, with targets left out."""
    random = np.random.default_rng(5)
    users, items = random.integers(0, 60_000, 400_000), random.integers(0, 40_000, 400_000)
    narrow = build_interactions(users, items, 60_000, 40_000)
    wide = Relation(INTERACTIONS, narrow.indptr.astype(np.int64), narrow.indices.astype(np.int64), symmetric=True)
    assert narrow.indices.dtype == np.int32
    exclude = {INTERACTIONS: torch.from_numpy(narrow.edge_ids(items[:500] + 60_000, users[:500]))}
    seeds = torch.from_numpy(random.permutation(100_000)[:5_000])
    table = torch.randn(100_000, 16, generator=torch.Generator().manual_seed(1))
    found = []
    for relation in (narrow, wide):
        source = sampled(sampler, relations={INTERACTIONS: relation})
        chain = source.neighbourhood(hop_specs([INTERACTIONS] * 2, [10, 5]), seeds, step_seed=9, exclude=exclude)
        h = table[chain.input_nodes].requires_grad_()
        out = torch.stack(propagate(chain, h))
        out.square().sum().backward()
        assert not np.isin(chain.hops[-1].edge_ids, exclude[INTERACTIONS]).any()
        assert all(ids.dtype == torch.int64 for hop in chain.hops for ids in (hop.edge_ids, hop.src_nodes))
        found.append((chain.input_nodes, [hop.edge_ids for hop in chain.hops], out.detach(), h.grad))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_fan_out_of_all_is_the_full_graph(chain: tuple[str, ...], sampler: str, kernel: str, dtype: type) -> None:
    relations = {
        name: relation_of(name, edges, N, symmetric=name == INTERACTIONS, dtype=dtype) for name, edges in EDGES.items()
    }
    specs = hop_specs(chain, [-1])
    outs, gradients = [], []
    for source in (FullGraph(relations, device=CPU, kernel=kernel), sampled(sampler, kernel, relations)):
        h = rows(7, N, DIM).requires_grad_()
        neighbourhood = source.neighbourhood(specs, SEEDS)
        inputs = h if neighbourhood.input_nodes is None else h[neighbourhood.input_nodes]
        outs.append(torch.stack(propagate(neighbourhood, inputs)))
        (outs[-1] * rows(8, len(SEEDS), DIM)).sum().backward()
        gradients.append(h.grad)
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_fan_out_above_every_degree_is_exact(sampler: str) -> None:
    neighbourhood = sampled(sampler).neighbourhood(hop_specs([INTERACTIONS] * 2, [N]), SEEDS, step_seed=3)
    h = rows(7, N, DIM)
    levels = propagate(neighbourhood, h[neighbourhood.input_nodes])
    matrix = normalised(DENSE[INTERACTIONS])
    assert_near(levels[2], (matrix @ matrix @ h.double().numpy())[SEEDS.numpy()])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_levels_start_with_the_seeds_and_chain_up(sampler: str) -> None:
    neighbourhood = sampled(sampler).neighbourhood(hop_specs([INTERACTIONS] * 3, [3]), SEEDS, step_seed=1)
    assert neighbourhood.seeds_first
    assert torch.equal(neighbourhood.hops[-1].dst_nodes, SEEDS)
    assert torch.equal(neighbourhood.hops[0].src_nodes, neighbourhood.input_nodes)
    for inner, outer in zip(neighbourhood.hops[1:], neighbourhood.hops, strict=False):
        assert torch.equal(inner.src_nodes, outer.dst_nodes)
    for hop in neighbourhood.hops:
        assert len(hop.src_nodes.unique()) == hop.num_src == hop.structure.num_src
        assert torch.equal(hop.src_nodes[: hop.num_dst], hop.dst_nodes)
        h = rows(1, hop.num_src, DIM)
        assert torch.equal(hop.own(h), h[: hop.num_dst])


def test_neighbour_draws_k_distinct_edges_of_every_destination() -> None:
    degrees = DENSE[INTERACTIONS].sum(1)
    for seed in range(20):
        (hop,) = sampled().neighbourhood(hop_specs([INTERACTIONS], [4]), SEEDS, step_seed=seed).hops
        triples = global_edges(hop)
        assert len({edge for _, _, edge in triples}) == len(triples)
        for place, node in enumerate(SEEDS.tolist()):
            assert sum(destination == node for _, destination, _ in triples) == min(4, degrees[node])
            assert hop.scale[place] == max(1.0, degrees[node] / 4)


def test_labor_decides_once_a_source() -> None:
    # Where all destinations have one degree, a source is taken by all of its destinations or by none.
    complete = relation_of(INTERACTIONS, both_directions([(u, i) for u in range(20) for i in range(30)], 20), 50)
    counts = []
    for seed in range(50):
        source = sampled("labor", relations={INTERACTIONS: complete})
        (hop,) = source.neighbourhood(hop_specs([INTERACTIONS], [6]), torch.arange(20), step_seed=seed).hops
        taken = {source for source, _, _ in global_edges(hop)}
        assert hop.structure.num_edges == 20 * len(taken)
        assert hop.scale.tolist() == [5.0] * 20
        counts.append(len(taken))
    # 30 sources with probability 1/5: Binomial(30, 1/5); the mean of 50 has a standard deviation of 0.31.
    assert len(set(counts)) > 3
    assert abs(np.mean(counts) - 6) < 5 * 0.31


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_step_seed_decides_the_draw(sampler: str) -> None:
    specs = hop_specs([INTERACTIONS] * 2, [3])

    def draw(seed: int) -> list[list[int]]:
        hops = sampled(sampler).neighbourhood(specs, SEEDS, step_seed=seed).hops
        return [hop.edge_ids.tolist() for hop in hops]

    first = draw(123_456_789)
    others = [draw(seed) for seed in (123_456_790, 0, 1, 2**40 + 7)]
    assert draw(123_456_789) == first  # whatever was drawn in between
    assert len({str(drawn[-1]) for drawn in [first, *others]}) == 5
    assert len({str(drawn[0]) for drawn in [first, *others]}) == 5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_hops_draw_independently(sampler: str) -> None:
    differ = 0
    for seed in range(10):
        outer, inner = sampled(sampler).neighbourhood(hop_specs([INTERACTIONS] * 2, [3]), SEEDS, step_seed=seed).hops
        seeds = set(SEEDS.tolist())
        drawn = [{edge for _, destination, edge in global_edges(hop) if destination in seeds} for hop in (outer, inner)]
        differ += drawn[0] != drawn[1]
    assert differ == 10


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("normalise", ["symmetric", "mean", "sum"])
@pytest.mark.parametrize("name", EDGES)
@pytest.mark.parametrize("fan_out", [-1, 3])
def test_edge_weights_and_their_gradients(name: str, normalise: str, sampler: str, fan_out: int) -> None:
    weight = rows(4, RELATIONS[name].num_edges, 1).flatten().requires_grad_()
    hop = sampled(sampler).neighbourhood([HopSpec(relation=name, fan_out=fan_out)], SEEDS, step_seed=5).hops[0]
    h = rows(7, N, DIM).requires_grad_()
    out = hop.aggregate(h[hop.src_nodes], weight[hop.edges()[2]], normalise)
    upstream = np.random.default_rng(9).normal(size=out.shape)
    out.backward(torch.from_numpy(upstream).float())

    # The estimate is a dense product too, once it is known which edges were drawn.
    degrees = DENSE[name].sum(1)
    factors = normalised(DENSE[name], normalise)
    values = weight.detach().tolist()
    start, row_of = h.detach().double().numpy(), {node: row for row, node in enumerate(SEEDS.tolist())}
    wanted, h_gradient = np.zeros((len(SEEDS), DIM)), np.zeros((N, DIM))
    weight_gradient = np.zeros(len(weight))
    for source, destination, edge in global_edges(hop):
        scale = max(1.0, degrees[destination] / fan_out) if fan_out > 0 else 1.0
        factor, row = factors[destination, source] * scale, row_of[destination]
        wanted[row] += factor * values[edge] * start[source]
        h_gradient[source] += factor * values[edge] * upstream[row]
        weight_gradient[edge] += factor * upstream[row] @ start[source]
    assert_near(out, wanted, 1e-5)
    assert_near(h.grad, h_gradient, 1e-5)
    assert_near(weight.grad, weight_gradient, 1e-5)


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("chain", [(INTERACTIONS,) * 3, ("also_viewed", INTERACTIONS)])
@pytest.mark.parametrize("exclude", [False, True])
def test_a_drawn_chain_and_its_gradient_are_dense_products(
    chain: tuple[str, ...], sampler: str, kernel: str, exclude: bool
) -> None:
    excluded = target_edges(TARGETS) if exclude else None
    without = None if excluded is None else {INTERACTIONS: excluded}
    source = sampled(sampler, kernel)
    neighbourhood = source.neighbourhood(hop_specs(chain, [2, 3]), SEEDS, step_seed=9, exclude=without)
    h = rows(7, N, DIM).requires_grad_()
    levels = propagate(neighbourhood, h[neighbourhood.input_nodes])
    fan_outs = [spec.fan_out for spec in hop_specs(chain, [2, 3])]
    power, loss, wanted_gradient = np.eye(N), torch.zeros(()), np.zeros((N, DIM))
    for level, (hop, name, fan_out) in enumerate(zip(neighbourhood.hops, chain, fan_outs, strict=True), start=1):
        factors, matrix = normalised(DENSE[name]), np.zeros((N, N))
        for sender, receiver, _ in global_edges(hop):
            matrix[receiver, sender] = factors[receiver, sender] * max(1.0, DENSE[name][receiver].sum() / fan_out)
        power = matrix @ power
        assert_near(levels[level], (power @ h.detach().double().numpy())[SEEDS.numpy()], 1e-5)
        weights = rows(20 + level, len(SEEDS), DIM)
        loss = loss + (levels[level] * weights).sum()
        wanted_gradient += power[SEEDS.numpy()].T @ weights.double().numpy()
    loss.backward()
    assert_near(h.grad, wanted_gradient, 1e-5)


def target_edges(pairs: list[tuple[int, int]]) -> torch.Tensor:
    """Ids of both directions of the pairs."""
    users, items = np.array(pairs).T
    relation = RELATIONS[INTERACTIONS]
    ids = [relation.edge_ids(users, items + U), relation.edge_ids(items + U, users)]
    return torch.from_numpy(np.concatenate(ids))


TARGETS = [*PAIRS[:12], (U - 1, 0), (0, N - U - 1)]  # the last two are no edges


def test_ids_of_target_edges() -> None:
    relation, ids = RELATIONS[INTERACTIONS], target_edges(TARGETS)
    assert ids.tolist().count(-1) == 4
    present = ids[ids >= 0].numpy()
    destinations = np.searchsorted(relation.indptr, present, "right") - 1
    found = zip(relation.indices[present].tolist(), destinations.tolist(), strict=True)
    assert set(found) == set(both_directions(PAIRS[:12], U))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("order", ["as found", "ascending", "descending"])
def test_excluded_edges_are_gone_from_every_hop_in_both_directions(sampler: str, order: str) -> None:
    exclude = target_edges(TARGETS)
    if order != "as found":
        exclude = exclude.sort(descending=order == "descending").values
    seeds = torch.tensor(sorted({node for edge in both_directions(PAIRS[:12], U) for node in edge}))
    gone = set(both_directions(PAIRS[:12], U))
    source, specs = sampled(sampler), hop_specs([INTERACTIONS] * 2, [-1])
    all_edges = source.neighbourhood(specs, seeds).hops
    remaining = source.neighbourhood(specs, seeds, exclude={INTERACTIONS: exclude}).hops
    for before, after in zip(all_edges, remaining, strict=True):
        have = {edge[:2] for edge in global_edges(after)}
        assert not have & gone
        assert have >= {edge[:2] for edge in global_edges(before) if edge[1] in seeds.tolist()} - gone


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_excluding_does_not_change_what_else_is_drawn_nor_the_scale(sampler: str) -> None:
    exclude = target_edges(TARGETS)
    for seed in range(10):
        draws = [
            sampled(sampler).neighbourhood(hop_specs([INTERACTIONS], [3]), SEEDS, step_seed=seed, exclude=e).hops[0]
            for e in (None, {INTERACTIONS: exclude})
        ]
        without = {edge for _, _, edge in global_edges(draws[0])} - set(exclude.tolist())
        assert {edge for _, _, edge in global_edges(draws[1])} == without
        assert torch.equal(draws[0].scale, draws[1].scale)


@pytest.mark.parametrize("exclude", [[], [-1], list(range(RELATIONS[INTERACTIONS].num_edges))])
def test_excluding_nothing_and_everything(exclude: list[int]) -> None:
    specs = hop_specs([INTERACTIONS] * 2, [-1])
    edges = torch.tensor(exclude, dtype=torch.int64)
    neighbourhood = sampled().neighbourhood(specs, SEEDS, exclude={INTERACTIONS: edges})
    levels = propagate(neighbourhood, rows(1, N, DIM)[neighbourhood.input_nodes])
    assert torch.equal(levels[0], rows(1, N, DIM)[SEEDS])
    assert bool(levels[1].any()) == (len(exclude) < 2)


def test_other_relations_keep_all_their_edges() -> None:
    # Edge ids of one relation mean nothing in another.
    specs = hop_specs(["also_viewed", INTERACTIONS], [-1])
    everything = torch.arange(RELATIONS["also_viewed"].num_edges)
    plain = sampled().neighbourhood(specs, torch.arange(N))
    excluding = sampled().neighbourhood(specs, torch.arange(N), exclude={INTERACTIONS: everything})
    assert excluding.hops[0].structure.num_edges == plain.hops[0].structure.num_edges
    assert excluding.hops[1].structure.num_edges < plain.hops[1].structure.num_edges


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("fan_out", [-1, 2])
def test_a_graph_without_edges(sampler: str, fan_out: int) -> None:
    empty = {INTERACTIONS: relation_of(INTERACTIONS, [], 6, symmetric=True)}
    seeds = torch.tensor([4, 0])
    neighbourhood = sampled(sampler, relations=empty).neighbourhood(hop_specs([INTERACTIONS] * 2, [fan_out]), seeds)
    assert torch.equal(neighbourhood.input_nodes, seeds)
    levels = propagate(neighbourhood, rows(1, 6, DIM)[seeds])
    assert levels[1].tolist() == levels[2].tolist() == [[0.0] * DIM] * 2


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([3, N], f"seed node {N} is outside 0 … {N - 1}"),
        ([-1, 3], f"seed node -1 is outside 0 … {N - 1}"),
        ([3, 5, 3, 7, 3], "seed node 3 is given more than once"),
    ],
)
def test_seeds_that_are_no_nodes_or_repeated(sampler: str, seeds: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampled(sampler).neighbourhood(hop_specs([INTERACTIONS], [2]), torch.tensor(seeds))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("fan_out", [-1, 2])
def test_no_seeds(sampler: str, fan_out: int) -> None:
    no_seeds = torch.tensor([], dtype=torch.int64)
    neighbourhood = sampled(sampler).neighbourhood(hop_specs([INTERACTIONS] * 2, [fan_out]), no_seeds)
    assert [level.shape for level in propagate(neighbourhood, torch.zeros(0, DIM))] == [(0, DIM)] * 3


def test_without_hops_the_seeds_are_the_input() -> None:
    neighbourhood = sampled().neighbourhood((), SEEDS)
    assert torch.equal(neighbourhood.input_nodes, SEEDS)
    assert neighbourhood.hops == ()
