"""The whole graph against dense fp64 products: all nodes and seeds, mixed and directed relations, edge weights."""

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

from braidrec.graph.neighbourhood import FullGraph, HopSpec, hop_specs
from braidrec.graph.propagate import combine_levels, propagate, propagate_to_readout
from braidrec.graph.relation import INTERACTIONS

U, N, DIM = 14, 25, 5
INTERACTION_EDGES = both_directions(random_pairs(1, U, N - U, 70), U)
VIEWED_EDGES = random_edges(2, range(U, N), 40)
SOCIAL_EDGES = random_edges(3, range(U), 40)
EDGES = {INTERACTIONS: INTERACTION_EDGES, "also_viewed": VIEWED_EDGES, "social": SOCIAL_EDGES}
DENSE = {name: adjacency(edges, N) for name, edges in EDGES.items()}
ISOLATED_USER, ISOLATED_ITEM = U - 1, N - 1
SEEDS = {
    "all": None,
    "all, shuffled": torch.randperm(N, generator=torch.Generator().manual_seed(0)),
    "some": torch.tensor([20, 3, ISOLATED_ITEM, 0, 17, ISOLATED_USER, 5]),
    "none": torch.tensor([], dtype=torch.int64),
}


def graph(kernel: str = "dgl", dtype: type = np.int32) -> FullGraph:
    relations = {
        name: relation_of(name, edges, N, symmetric=name == INTERACTIONS, dtype=dtype) for name, edges in EDGES.items()
    }
    return FullGraph(relations, device=CPU, kernel=kernel)


def check_levels(
    levels: list[torch.Tensor], h: torch.Tensor, powers: list[np.ndarray], seeds: torch.Tensor | None
) -> None:
    """Values of all levels, and the gradient of a weighted sum over all of them, against the dense `powers`."""
    chosen = slice(None) if seeds is None else seeds.numpy()
    start = h.detach().double().numpy()
    gradient = np.zeros_like(start)
    loss = torch.zeros(())
    for level, power in enumerate(powers):
        assert_near(levels[level], (power @ start)[chosen])
        weights = np.random.default_rng(level).normal(size=levels[level].shape)
        gradient += power[chosen].T @ weights
        loss = loss + (levels[level] * torch.from_numpy(weights).float()).sum()
    loss.backward()
    assert_near(h.grad, gradient)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_lightgcn_levels_and_gradients(layers: int, seeds: str, kernel: str, dtype: type) -> None:
    matrix = normalised(DENSE[INTERACTIONS])
    h = rows(7, N, DIM).requires_grad_()
    neighbourhood = graph(kernel, dtype).neighbourhood(hop_specs([INTERACTIONS] * layers, [-1]), SEEDS[seeds])
    assert neighbourhood.input_nodes is None
    powers = [np.linalg.matrix_power(matrix, level) for level in range(layers + 1)]
    check_levels(propagate(neighbourhood, h), h, powers, SEEDS[seeds])


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("used", [[0], [1], [2], [3], [0, 2], [1, 3]])
def test_gradients_of_some_levels_only(used: list[int], seeds: str, kernel: str) -> None:
    matrix = normalised(DENSE[INTERACTIONS])
    chosen = slice(None) if SEEDS[seeds] is None else SEEDS[seeds].numpy()
    h = rows(7, N, DIM).requires_grad_()
    levels = propagate(graph(kernel).neighbourhood(hop_specs([INTERACTIONS] * 3, [-1]), SEEDS[seeds]), h)
    weights = {level: np.random.default_rng(level).normal(size=levels[level].shape) for level in used}
    # Gradients that arrive transposed in memory, as from a product with a transposed matrix.
    arriving = [torch.from_numpy(weights[level].T.copy()).float().T for level in used]
    (gradient,) = torch.autograd.grad([levels[level] for level in used], h, arriving)
    assert_near(gradient, sum(np.linalg.matrix_power(matrix, level)[chosen].T @ weights[level] for level in used))


@pytest.mark.parametrize("chain", [(INTERACTIONS,) * 3, ("also_viewed", INTERACTIONS)])
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("readout", ["mean", "sum", "last", "concat"])
def test_readout_without_levels(readout: str, seeds: str, chain: tuple[str, ...]) -> None:
    """Values and gradients of readout and level 0, together and each alone, against dense products."""
    start = rows(7, N, DIM).double()
    chosen = slice(None) if SEEDS[seeds] is None else SEEDS[seeds].numpy()
    powers = [np.eye(N)]
    for name in chain:
        powers.append(normalised(DENSE[name]) @ powers[-1])
    stacked = np.concatenate([power[chosen] for power in powers])  # [(L + 1) n, N]
    levels = len(powers)
    weights = {"mean": np.full(levels, 1 / levels), "sum": np.ones(levels), "last": np.eye(levels)[-1]}
    readers = {name: np.kron(row, np.eye(len(stacked) // levels)) @ stacked for name, row in weights.items()}
    neighbourhood = graph().neighbourhood(hop_specs(chain, [-1]), SEEDS[seeds])
    h = start.clone().requires_grad_()
    vectors, ego = propagate_to_readout(neighbourhood, h, readout)
    assert_near(ego, start.numpy()[chosen])
    if readout == "concat":
        assert_near(vectors, np.concatenate([power[chosen] @ start.numpy() for power in powers], axis=1))
        return
    reader = readers[readout]
    assert_near(vectors, reader @ start.numpy())
    first, second = (torch.from_numpy(np.random.default_rng(k).normal(size=vectors.shape)) for k in (1, 2))
    by_readout, by_ego = reader.T @ first.numpy(), powers[0][chosen].T @ second.numpy()
    for outputs, arriving, wanted in (
        ([vectors], [first], by_readout),
        ([ego], [second], by_ego),
        ([vectors, ego], [first, second], by_readout + by_ego),
    ):
        (gradient,) = torch.autograd.grad(outputs, h, arriving, retain_graph=True)
        assert_near(gradient, wanted)


@pytest.mark.parametrize("chain", [(INTERACTIONS,) * 3, ("also_viewed", INTERACTIONS)])
@pytest.mark.parametrize("readout", ["mean", "sum", "last", "concat"])
def test_readout_without_level_zero(readout: str, chain: tuple[str, ...]) -> None:
    start = rows(7, N, DIM).double()
    powers = [np.eye(N)]
    for name in chain:
        powers.append(normalised(DENSE[name]) @ powers[-1])
    reached = [power @ start.numpy() for power in powers[1:]]
    wanted = {
        "mean": sum(reached) / len(reached),
        "sum": sum(reached),
        "last": reached[-1],
        "concat": np.concatenate(reached, axis=1),
    }[readout]
    h = start.clone().requires_grad_()
    vectors, ego = propagate_to_readout(graph().neighbourhood(hop_specs(chain, [-1]), None), h, readout, ego=False)
    assert_near(vectors, wanted)
    assert_near(ego, start.numpy())
    given = np.random.default_rng(1).normal(size=wanted.shape)
    (gradient,) = torch.autograd.grad([vectors], h, torch.from_numpy(given))
    readers = {
        "mean": [power / len(reached) for power in powers[1:]],
        "sum": powers[1:],
        "last": [0 * power for power in powers[1:-1]] + powers[-1:],
    }
    if readout == "concat":
        parts = np.split(given, len(reached), axis=1)
        assert_near(gradient, sum(power.T @ part for power, part in zip(powers[1:], parts, strict=True)))
    else:
        assert_near(gradient, sum(reader.T @ given for reader in readers[readout]))


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("seeds", ["all", "some"])
def test_first_and_second_derivatives_numerically(seeds: str, kernel: str) -> None:
    neighbourhood = graph(kernel).neighbourhood(hop_specs([INTERACTIONS] * 2, [-1]), SEEDS[seeds])
    h = rows(7, N, 2).double().requires_grad_()

    def cubes(start: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(level**3 for level in propagate(neighbourhood, start))

    assert torch.autograd.gradcheck(cubes, h)
    assert torch.autograd.gradgradcheck(cubes, h)


@pytest.mark.parametrize("chain", [(INTERACTIONS,) * 2, ("also_viewed", INTERACTIONS)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("inside", [None, torch.bfloat16])
def test_the_result_has_the_format_of_the_input(
    chain: tuple[str, ...], dtype: torch.dtype, inside: torch.dtype | None
) -> None:
    h = rows(7, N, 4).to(dtype).requires_grad_()
    levels = propagate(graph().neighbourhood(hop_specs(chain, [-1]), SEEDS["some"]), h, dtype=inside)
    assert {level.dtype for level in levels} == {dtype}
    combine_levels(levels, "sum").sum().backward()
    assert h.grad.dtype == dtype


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
def test_inputs_transposed_in_memory(kernel: str) -> None:
    neighbourhood = graph(kernel).neighbourhood(hop_specs([INTERACTIONS] * 2, [-1]), SEEDS["some"])
    h = rows(7, N, DIM)
    for mine, wanted in zip(propagate(neighbourhood, h.T.contiguous().T), propagate(neighbourhood, h), strict=True):
        torch.testing.assert_close(mine, wanted)


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
def test_the_last_hop_computes_the_rows_of_the_seeds_only(kernel: str) -> None:
    seeds, chain = SEEDS["some"], hop_specs([INTERACTIONS] * 2, [-1])
    source, h = graph(kernel), rows(7, N, DIM)
    restricted = source.neighbourhood(chain, seeds)
    whole = propagate(source.neighbourhood(chain, None), h)
    degrees = DENSE[INTERACTIONS].sum(1)
    assert [hop.num_dst for hop in restricted.hops] == [N, len(seeds)]
    assert restricted.hops[-1].structure.num_edges == degrees[seeds.numpy()].sum() < degrees.sum()
    assert source.neighbourhood(chain, SEEDS["all, shuffled"]).hops[-1].structure.num_edges == degrees.sum()
    for mine, all_rows in zip(propagate(restricted, h), whole, strict=True):
        torch.testing.assert_close(mine, all_rows[seeds], rtol=1e-6, atol=1e-7)


def test_isolated_nodes_keep_level_zero_and_get_zeros() -> None:
    h = rows(7, N, DIM)
    levels = propagate(graph().neighbourhood(hop_specs([INTERACTIONS] * 2, [-1]), None), h)
    for node in (ISOLATED_USER, ISOLATED_ITEM):
        assert torch.equal(levels[0][node], h[node])
        assert levels[1][node].tolist() == levels[2][node].tolist() == [0.0] * DIM


def test_without_hops_the_seeds_are_the_input() -> None:
    seeds = SEEDS["some"]
    neighbourhood = graph().neighbourhood((), seeds)
    assert torch.equal(neighbourhood.input_nodes, seeds)
    h = rows(1, len(seeds), DIM)
    (level,) = propagate(neighbourhood, h)
    assert torch.equal(level, h)


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("normalise", ["symmetric", "mean", "sum"])
@pytest.mark.parametrize("name", ["also_viewed", "social"])
@pytest.mark.parametrize("seeds", ["all", "some"])
def test_a_directed_relation(name: str, normalise: str, kernel: str, seeds: str) -> None:
    assert (DENSE[name].sum(0) != DENSE[name].sum(1)).any()
    h = rows(7, N, DIM).requires_grad_()
    neighbourhood = graph(kernel).neighbourhood([HopSpec(relation=name)], SEEDS[seeds])
    out = neighbourhood.hops[0].aggregate(h, normalise=normalise)
    check_levels([neighbourhood.at_seeds(h, 0), out], h, [np.eye(N), normalised(DENSE[name], normalise)], SEEDS[seeds])


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize(
    "chain",
    [
        ("also_viewed", INTERACTIONS),
        (INTERACTIONS, "social"),
        ("also_viewed", INTERACTIONS, INTERACTIONS, "social"),
        ("also_viewed", "also_viewed"),
    ],
)
def test_chains_that_mix_relations(chain: tuple[str, ...], seeds: str, kernel: str) -> None:
    h = rows(7, N, DIM).requires_grad_()
    neighbourhood = graph(kernel).neighbourhood(hop_specs(chain, [-1]), SEEDS[seeds])
    powers = [np.eye(N)]
    for name in chain:
        powers.append(normalised(DENSE[name]) @ powers[-1])
    check_levels(propagate(neighbourhood, h), h, powers, SEEDS[seeds])


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("normalise", ["symmetric", "mean", "sum"])
@pytest.mark.parametrize("seeds", ["all", "some"])
@pytest.mark.parametrize("name", EDGES)
def test_edge_weights_and_their_gradients(name: str, seeds: str, normalise: str, kernel: str) -> None:
    ordered = sorted({(destination, source) for source, destination in EDGES[name]})
    weight = rows(4, len(ordered), 1).flatten().requires_grad_()
    h = rows(7, N, DIM).requires_grad_()
    hop = graph(kernel).neighbourhood([HopSpec(relation=name)], SEEDS[seeds]).hops[0]
    out = hop.aggregate(h, weight[hop.edges()[2]], normalise)
    upstream = np.zeros((N, DIM))
    chosen = slice(None) if SEEDS[seeds] is None else SEEDS[seeds].numpy()
    upstream[chosen] = np.random.default_rng(9).normal(size=out.shape)
    out.backward(torch.from_numpy(upstream[chosen]).float())

    factors = normalised(DENSE[name], normalise)
    dense, start = np.zeros((N, N)), h.detach().double().numpy()
    for (destination, source), value in zip(ordered, weight.detach().tolist(), strict=True):
        dense[destination, source] = value
    assert_near(out, (dense * factors @ start)[chosen])
    assert_near(h.grad, (dense * factors).T @ upstream)
    wanted = [factors[v, u] * upstream[v] @ start[u] for v, u in ordered]
    assert_near(weight.grad, np.array(wanted))


@pytest.mark.parametrize("seeds", ["all", "some"])
@pytest.mark.parametrize("name", EDGES)
def test_edges_name_source_destination_and_id(name: str, seeds: str) -> None:
    ordered = sorted({(destination, source) for source, destination in EDGES[name]})
    hop = graph().neighbourhood([HopSpec(relation=name)], SEEDS[seeds]).hops[0]
    sources, destinations, ids = (values.tolist() for values in hop.edges())
    nodes = list(range(N)) if SEEDS[seeds] is None else SEEDS[seeds].tolist()
    assert [ordered[place] for place in ids] == [(nodes[d], s) for s, d in zip(sources, destinations, strict=True)]
    assert sorted(ids) == [place for place, (destination, _) in enumerate(ordered) if destination in nodes]


def test_own_rows() -> None:
    seeds, h = SEEDS["some"], rows(7, N, DIM)
    hops = graph().neighbourhood(hop_specs([INTERACTIONS] * 2, [-1]), seeds).hops
    assert torch.equal(hops[0].own(h), h)
    assert torch.equal(hops[1].own(h), h[seeds])


def test_fan_outs_and_step_seed_mean_nothing_here() -> None:
    h = rows(7, N, DIM)
    outs = [
        propagate(graph().neighbourhood(hop_specs([INTERACTIONS], [fan_out]), None, step_seed=seed), h)[1]
        for fan_out, seed in ((-1, 0), (1, 5))
    ]
    assert torch.equal(*outs)


def test_excluding_edges_is_refused() -> None:
    source, chain = graph(), hop_specs([INTERACTIONS], [-1])
    with pytest.raises(ValueError, match=r"set propagation\.mode to 'sampled'"):
        source.neighbourhood(chain, None, exclude={INTERACTIONS: torch.tensor([3])})
    assert source.neighbourhood(chain, None, exclude={INTERACTIONS: torch.tensor([], dtype=torch.int64)}).hops


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("chain", [(INTERACTIONS,) * 3, ("also_viewed", INTERACTIONS)])
def test_bf16_inside_the_hops(chain: tuple[str, ...], kernel: str) -> None:
    h = rows(7, N, 16).requires_grad_()
    neighbourhood = graph(kernel).neighbourhood(hop_specs(chain, [-1]), SEEDS["some"])
    exact, rounded = propagate(neighbourhood, h), propagate(neighbourhood, h, dtype=torch.bfloat16)
    (wanted,) = torch.autograd.grad(combine_levels(exact, "sum").square().sum(), h)
    (gradient,) = torch.autograd.grad(combine_levels(rounded, "sum").square().sum(), h)
    assert torch.equal(rounded[0], exact[0])
    for level, (mine, right) in enumerate(zip(rounded[1:], exact[1:], strict=True), start=1):
        assert mine.dtype == torch.float32
        # Each hop rounds a few times to 8 bits, relative to the largest entries that are summed.
        assert 0 < (mine - right).abs().max() <= level * 2**-7 * right.abs().max()
    assert (gradient - wanted).abs().max() <= 2**-5 * wanted.abs().max()


def test_fan_outs_go_from_the_seeds_outwards_and_the_last_repeats() -> None:
    assert [spec.fan_out for spec in hop_specs(["a", "b", "c"], [5, 9])] == [9, 9, 5]
    assert [spec.relation for spec in hop_specs(["a", "b", "c"], [5, 9])] == ["a", "b", "c"]
    assert [spec.fan_out for spec in hop_specs(["a"], [5, 9])] == [5]
