"""Relations with fixed edge weights against dense fp64 products: whole, restricted, sampled, transposed, stored."""

from pathlib import Path

import numpy as np
import pytest
import torch
from graph_oracles import (
    CPU,
    assert_near,
    both_directions,
    random_edges,
    random_pairs,
    relation_of,
    rows,
)
from scipy.stats import norm

from braidrec.graph.kernels import sum_sources
from braidrec.graph.neighbourhood import FullGraph, HopSpec, SampledSubgraph, hop_specs
from braidrec.graph.propagate import propagate, propagate_to_last
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.graph.share import shared_relation
from braidrec.graph.structure import Structure, _transpose_weighted

U, N, DIM = 14, 25, 6
NORMALISATIONS = ["symmetric", "mean", "sum"]
SEEDS = {"all": None, "some": torch.tensor([20, 3, N - 1, 0, 17, U - 1, 5])}


def weighted(
    name: str, edges: list[tuple[int, int]], num_nodes: int = N, *, symmetric: bool = False, final: bool = False
) -> tuple[Relation, np.ndarray]:
    """The relation with a random weight an edge, the same for both directions if symmetric, and its dense matrix."""
    plain = relation_of(name, edges, num_nodes, symmetric=symmetric)
    rng = np.random.default_rng(num_nodes + len(edges))
    table = rng.uniform(0.05, 3.0, size=(num_nodes, num_nodes)).astype(np.float32)
    if symmetric:
        table = np.maximum(table, table.T)
    destinations = np.repeat(np.arange(num_nodes), np.diff(plain.indptr))
    weight = table[destinations, plain.indices]
    dense = np.zeros((num_nodes, num_nodes))
    for destination, source, value in zip(destinations.tolist(), plain.indices.tolist(), weight.tolist(), strict=True):
        dense[destination, source] = value
    relation = Relation(name, plain.indptr, plain.indices, symmetric=symmetric, weight=weight, weights_are_final=final)
    return relation, dense


def normalised_by_sums(matrix: np.ndarray, how: str) -> np.ndarray:
    """Entry by entry, with the sums of weights as degrees."""
    found = np.zeros_like(matrix)
    for v, u in zip(*np.nonzero(matrix), strict=True):
        divisor = {
            "symmetric": np.sqrt(matrix[v].sum() * matrix[:, u].sum()),
            "mean": matrix[v].sum(),
            "sum": 1.0,
        }[how]
        found[v, u] = matrix[v, u] / divisor
    return found


EDGES = {
    INTERACTIONS: both_directions(random_pairs(1, U, N - U, 70), U),
    "also_viewed": random_edges(2, range(U, N), 40),
}
CASES = {
    (name, final): weighted(name, edges, symmetric=name == INTERACTIONS, final=final)
    for name, edges in EDGES.items()
    for final in (False, True)
}


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("case", CASES)
def test_whole_and_restricted_hops_and_their_gradients(
    case: tuple[str, bool], normalise: str, seeds: str, kernel: str
) -> None:
    relation, dense = CASES[case]
    matrix = dense if case[1] else normalised_by_sums(dense, normalise)
    source = FullGraph({relation.name: relation}, device=CPU, kernel=kernel)
    neighbourhood = source.neighbourhood([HopSpec(relation=relation.name)], SEEDS[seeds])
    h = rows(7, N, DIM).requires_grad_()
    out = neighbourhood.at_seeds(neighbourhood.hops[0].aggregate(h, normalise=normalise), 1)
    chosen = slice(None) if SEEDS[seeds] is None else SEEDS[seeds].numpy()
    upstream = np.random.default_rng(9).normal(size=out.shape)
    out.backward(torch.from_numpy(upstream).float())
    assert_near(out, (matrix @ h.detach().double().numpy())[chosen])
    assert_near(h.grad, matrix[chosen].T @ upstream)


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
def test_few_seeds_get_a_structure_with_their_edges_only(kernel: str) -> None:
    relation, dense = CASES["also_viewed", False]
    h = rows(7, N, DIM).requires_grad_()
    whole = relation.structure
    wanted = torch.tensor([22, 15, N - 1, 16])
    part, positions = whole.rows(wanted)
    assert torch.equal(part.weight, whole.weight[positions])
    out = sum_sources(part, h, kernel)
    out.sum().backward()
    assert_near(out, (dense @ h.detach().double().numpy())[wanted.numpy()])
    assert_near(h.grad, np.repeat(dense[wanted.numpy()].sum(0)[:, None], DIM, axis=1))


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("layers", [1, 3])
def test_lightgcn_over_weighted_relations(layers: int, case: tuple[str, bool], seeds: str, kernel: str) -> None:
    relation, dense = CASES[case]
    matrix = dense if case[1] else normalised_by_sums(dense, "symmetric")
    source = FullGraph({relation.name: relation}, device=CPU, kernel=kernel)
    h = rows(7, N, DIM).requires_grad_()
    levels = propagate(source.neighbourhood(hop_specs([relation.name] * layers, [-1]), SEEDS[seeds]), h)
    chosen = slice(None) if SEEDS[seeds] is None else SEEDS[seeds].numpy()
    start, gradient, loss = h.detach().double().numpy(), np.zeros((N, DIM)), torch.zeros(())
    for level, value in enumerate(levels):
        power = np.linalg.matrix_power(matrix, level)
        assert_near(value, (power @ start)[chosen], tolerance=2e-6 * max(1.0, np.abs(power).sum(1).max()))
        weights = np.random.default_rng(level).normal(size=value.shape)
        gradient += power[chosen].T @ weights
        loss = loss + (value * torch.from_numpy(weights).float()).sum()
    loss.backward()
    assert_near(h.grad, gradient, tolerance=2e-6 * max(1.0, np.abs(gradient).max()))


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("seeds", SEEDS)
def test_learned_weights_multiply_the_fixed_ones(seeds: str, kernel: str) -> None:
    relation, dense = CASES["also_viewed", False]
    source = FullGraph({relation.name: relation}, device=CPU, kernel=kernel)
    neighbourhood = source.neighbourhood([HopSpec(relation=relation.name)], SEEDS[seeds])
    (hop,) = neighbourhood.hops
    learned = rows(4, relation.num_edges, 1).flatten().requires_grad_()
    h = rows(7, N, DIM)
    out = neighbourhood.at_seeds(hop.aggregate(h, learned[hop.edges()[2]]), 1)
    out.sum().backward()
    matrix, start = normalised_by_sums(dense, "symmetric"), h.double().numpy()
    destinations = np.repeat(np.arange(N), np.diff(relation.indptr))
    product = np.zeros((N, N))
    product[destinations, relation.indices] = learned.detach().double().numpy()
    chosen = np.arange(N) if SEEDS[seeds] is None else SEEDS[seeds].numpy()
    assert_near(out, ((product * matrix) @ start)[chosen])
    wanted = [
        matrix[v, u] * start[u].sum() if v in chosen else 0.0
        for v, u in zip(destinations.tolist(), relation.indices.tolist(), strict=True)
    ]
    assert_near(learned.grad, np.array(wanted))


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("sampler", ["neighbour", "labor"])
@pytest.mark.parametrize("case", CASES)
def test_sampling_every_neighbour_is_exact(case: tuple[str, bool], sampler: str, kernel: str) -> None:
    relation, dense = CASES[case]
    matrix = dense if case[1] else normalised_by_sums(dense, "symmetric")
    source = SampledSubgraph({relation.name: relation}, device=CPU, kernel=kernel, sampler=sampler)
    neighbourhood = source.neighbourhood(hop_specs([relation.name] * 2, [-1]), SEEDS["some"])
    h = rows(7, N, DIM).requires_grad_()
    out = propagate(neighbourhood, h[neighbourhood.input_nodes])[2]
    upstream = np.random.default_rng(9).normal(size=out.shape)
    out.backward(torch.from_numpy(upstream).float())
    twice = (matrix @ matrix)[SEEDS["some"].numpy()]
    assert_near(out, twice @ h.detach().double().numpy(), tolerance=1e-4)
    assert_near(h.grad, twice.T @ upstream, tolerance=1e-4)


COPIES, CALLS = 200, 20


@pytest.mark.parametrize("sampler", ["neighbour", "labor"])
@pytest.mark.parametrize("final", [False, True])
def test_sampled_sums_are_unbiased_and_weights_follow_their_edges(sampler: str, final: bool) -> None:
    """A z-test over 4,000 draws, as in test_unbiased.py: the graph in 200 copies, each with its own draw."""
    small, dense = CASES["also_viewed", final]
    degree = np.diff(small.indptr)
    indptr = np.concatenate([[0], np.tile(degree, COPIES).cumsum()]).astype(np.int32)
    shift = np.repeat(np.arange(COPIES) * N, small.num_edges)
    indices = (np.tile(small.indices, COPIES) + shift).astype(np.int32)
    weight = np.tile(small.weight, COPIES)
    many = Relation("also_viewed", indptr, indices, symmetric=False, weight=weight, weights_are_final=final)
    nodes = [v for v in range(N) if degree[v] > 2][:6]
    seeds = torch.tensor([copy * N + node for copy in range(COPIES) for node in nodes])
    h, source = rows(3, N, 2), SampledSubgraph({"also_viewed": many}, device=CPU, kernel="dgl", sampler=sampler)
    found = []
    for step_seed in range(CALLS):
        (hop,) = source.neighbourhood([HopSpec(relation="also_viewed", fan_out=2)], seeds, step_seed=step_seed).hops
        out = hop.aggregate(h.repeat(COPIES, 1)[hop.src_nodes])
        found.append(out.double().numpy().reshape(COPIES, len(nodes), 2))
    drawn = np.concatenate(found)
    matrix = dense if final else normalised_by_sums(dense, "symmetric")
    exact = (matrix @ h.double().numpy())[nodes]
    error = drawn.std(0, ddof=1) / np.sqrt(len(drawn))
    limit = norm.isf(1e-4 / (2 * exact.size))
    assert (np.abs(drawn.mean(0) - exact) / error).max() < limit
    # Without the weights, or with those of other edges, it would be far off.
    unweighted = ((matrix > 0) / np.maximum(degree, 1)[:, None] @ h.double().numpy())[nodes]
    assert (np.abs(drawn.mean(0) - unweighted) / error).max() > 3 * limit


@pytest.mark.parametrize("index_type", [torch.int32, torch.int64])
@pytest.mark.parametrize("num_edges", [0, 60])
def test_transposing_takes_the_weights_along(index_type: torch.dtype, num_edges: int) -> None:
    rng = np.random.default_rng(5)
    drawn = rng.integers(0, 7, (num_edges, 2)) + np.array([2, 0])
    pairs = sorted({(destination, source) for destination, source in drawn.tolist()})
    indptr = torch.from_numpy(np.searchsorted([d for d, _ in pairs], np.arange(10))).to(index_type)
    indices = torch.tensor([s for _, s in pairs], dtype=index_type)
    weight = torch.from_numpy(rng.normal(size=len(pairs))).float()
    structure = Structure(indptr, indices, 7, weight=weight)
    turned = structure.transposed
    assert (turned.num_dst, turned.num_src, turned.indices.dtype) == (7, 9, index_type)
    found = sorted(zip(turned.indices.tolist(), turned.destinations.tolist(), turned.weight.tolist(), strict=True))
    assert found == [(*pair, value) for pair, value in zip(pairs, weight.tolist(), strict=True)]
    again = _transpose_weighted(turned, turned.weight)
    assert torch.equal(again.weight, weight) and torch.equal(again.indices, indices)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kernel", ["dgl", "torch"])
def test_other_formats(kernel: str, dtype: torch.dtype) -> None:
    relation, dense = CASES["also_viewed", False]
    h = rows(7, N, DIM).to(dtype)
    out = sum_sources(relation.structure, h, kernel)
    assert out.dtype == dtype
    # Rounding of the weights and of the result, each relative to what is summed.
    magnitude = np.abs(dense) @ np.abs(h.double().numpy())
    assert (
        np.abs(out.double().numpy() - dense @ h.double().numpy()) <= 2 * torch.finfo(dtype).eps * magnitude + 1e-6
    ).all()


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
def test_first_derivative_numerically(kernel: str) -> None:
    relation, _ = CASES["also_viewed", False]
    h = rows(7, N, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda start: sum_sources(relation.structure, start, kernel) ** 2, h)


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
def test_weights_of_zero_and_nodes_whose_weights_add_up_to_zero(kernel: str) -> None:
    weight = np.array([0.0, 0.0, 2.0], dtype=np.float32)
    relation = Relation("x", np.array([0, 2, 3, 3]), np.array([1, 2, 0]), symmetric=False, weight=weight)
    assert relation.inverse_sqrt_in_degree.tolist() == [0.0, pytest.approx(2**-0.5), 0.0]
    assert relation.inverse_sqrt_out_degree.tolist() == [pytest.approx(2**-0.5), 0.0, 0.0]
    (hop,) = FullGraph({"x": relation}, device=CPU, kernel=kernel).neighbourhood([HopSpec(relation="x")], None).hops
    h = rows(1, 3, 2)
    for normalise in NORMALISATIONS:
        out = hop.aggregate(h, normalise=normalise)
        assert out.isfinite().all() and not out[[0, 2]].any()


def test_counts_are_not_weighted_but_normalising_degrees_are() -> None:
    relation, dense = CASES["also_viewed", False]
    assert relation.in_degree.tolist() == (dense > 0).sum(1).tolist()
    assert relation.out_degree.tolist() == (dense > 0).sum(0).tolist()
    sums = dense.sum(1)
    wanted = [s**-0.5 if s else 0.0 for s in sums.tolist()]
    np.testing.assert_allclose(relation.inverse_sqrt_in_degree.numpy(), wanted, rtol=1e-6)
    assert (sums[sums > 0] < 1).any()  # where a floor of one would show


@pytest.mark.parametrize("case", CASES)
def test_stored_and_mapped(tmp_path: Path, case: tuple[str, bool]) -> None:
    relation, _ = CASES[case]

    def forbidden() -> Relation:
        raise AssertionError("built again")

    shared_relation(tmp_path, "digest", lambda: relation, symmetric=relation.symmetric)
    mapped = shared_relation(tmp_path, "digest", forbidden, symmetric=relation.symmetric)
    assert mapped.weights_are_final == case[1]
    assert mapped.weight.dtype == np.float32
    np.testing.assert_array_equal(mapped.weight, relation.weight)
    h, specs = rows(7, N, DIM), hop_specs([relation.name] * 2, [2])
    outs = []
    for each in (relation, mapped):
        source = SampledSubgraph({relation.name: each}, device=CPU, kernel="dgl")
        neighbourhood = source.neighbourhood(specs, SEEDS["some"], step_seed=3)
        outs.append(propagate(neighbourhood, h[neighbourhood.input_nodes])[2])
    assert torch.equal(*outs)


@pytest.mark.parametrize("damage", ["missing", "shorter"])
def test_a_damaged_weight_file_is_noticed(tmp_path: Path, damage: str) -> None:
    relation, _ = CASES["also_viewed", True]
    shared_relation(tmp_path, "digest", lambda: relation, symmetric=False)
    (folder,) = tmp_path.iterdir()
    content = (folder / "weight.npy").read_bytes()
    (folder / "weight.npy").unlink()
    if damage == "shorter":
        (folder / "weight.npy").write_bytes(content[:-4])
    with pytest.warns(UserWarning, match="the relation is built again"):
        again = shared_relation(tmp_path, "digest", lambda: relation, symmetric=False)
    np.testing.assert_array_equal(again.weight, relation.weight)


@pytest.mark.parametrize("dtype", [None, torch.float32])
@pytest.mark.parametrize("seeds", list(SEEDS))
def test_the_last_level_alone_is_the_last_of_all_levels(seeds: str, dtype: torch.dtype | None) -> None:
    relation, dense = weighted("directed", random_edges(5, range(N), 60), final=True)
    neighbourhood = FullGraph({"directed": relation}, device=CPU, kernel="dgl").neighbourhood(
        hop_specs(["directed"] * 2, [-1]), SEEDS[seeds]
    )
    h = rows(6, N, DIM)
    last = propagate_to_last(neighbourhood, h, dtype=dtype)
    expected = dense @ dense @ h.double().numpy()
    assert_near(last, expected if SEEDS[seeds] is None else expected[SEEDS[seeds].numpy()])
    assert torch.equal(last, propagate(neighbourhood, h, dtype=dtype)[-1])
