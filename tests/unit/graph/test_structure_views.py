"""Views of a relation: rates, exact numbers, both directions alike, reproducible, and the original untouched."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from graph_oracles import CPU, adjacency, assert_near, both_directions, normalised, random_edges, relation_of, rows
from scipy import stats

from braidrec.graph import views
from braidrec.graph.hashing import hashed, normal, splitmix64, stream_key, uniform
from braidrec.graph.neighbourhood import FullGraph, HopSpec
from braidrec.graph.relation import Relation
from braidrec.graph.views import drop_edges, drop_edges_by_degree, drop_nodes, weight_noise

U, N = 60, 110
RNG = np.random.default_rng(0)
PAIRS = list(zip((RNG.random(900) ** 2 * U).astype(int), (RNG.random(900) ** 2 * (N - U)).astype(int), strict=True))
SYMMETRIC_EDGES = both_directions([(int(u), int(i)) for u, i in PAIRS], U)
DIRECTED_EDGES = random_edges(1, range(N), 1_000)
View = Callable[[Relation, int], Relation]
VIEWS: dict[str, View] = {
    "drop_edges": lambda relation, seed: drop_edges(relation, 0.3, seed),
    "drop_nodes": lambda relation, seed: drop_nodes(relation, 0.2, seed),
    "drop_edges_by_degree": lambda relation, seed: drop_edges_by_degree(relation, 0.4, seed),
    "weight_noise": lambda relation, seed: weight_noise(relation, 0.1, seed),
}


def relation(symmetric: bool = True, weighted: bool = False, dtype: type = np.int32) -> Relation:
    plain = relation_of("base", SYMMETRIC_EDGES if symmetric else DIRECTED_EDGES, N, symmetric=symmetric, dtype=dtype)
    if not weighted:
        return plain
    destinations = np.repeat(np.arange(N), np.diff(plain.indptr))
    weight = (1 + (plain.indices + destinations) % 7).astype(np.float32)  # equal in both directions
    return Relation("base", plain.indptr, plain.indices, symmetric=symmetric, weight=weight)


def edges_of(relation: Relation) -> dict[tuple[int, int], float]:
    """`(source, destination)` → weight."""
    destinations = np.repeat(np.arange(relation.num_nodes), np.diff(relation.indptr)).tolist()
    weight = [1.0] * relation.num_edges if relation.weight is None else relation.weight.tolist()
    return dict(zip(zip(relation.indices.tolist(), destinations, strict=True), weight, strict=True))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", VIEWS)
def test_every_view_is_a_well_formed_part_of_the_untouched_original(name: str, weighted: bool, symmetric: bool) -> None:
    base = relation(symmetric, weighted)
    copies = [None if a is None else a.copy() for a in (base.indptr, base.indices, base.weight)]
    before = edges_of(base)
    view = VIEWS[name](base, 7)
    for array, copy in zip((base.indptr, base.indices, base.weight), copies, strict=True):
        assert (array is None and copy is None) or np.array_equal(array, copy)
    assert (view.name, view.symmetric, view.num_nodes) == (f"base~{name}", symmetric, N)
    assert view.indptr.dtype == view.indices.dtype == np.int32
    after = edges_of(view)
    assert len(after) == view.num_edges and set(after) <= set(before)
    for node in range(N):
        assert (np.diff(view.indices[view.indptr[node] : view.indptr[node + 1]]) > 0).all()
    if symmetric:
        assert {(d, s): w for (s, d), w in after.items()} == after
    if name == "weight_noise":
        assert set(after) == set(before) and view.weight.dtype == np.float32
    else:
        assert 0 < len(after) < len(before)
        assert after == {edge: before[edge] for edge in after}
        assert (view.weight is None) == (not weighted)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("name", VIEWS)
def test_seed_and_name_decide_and_nothing_else(name: str, symmetric: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    base = relation(symmetric)
    first = edges_of(VIEWS[name](base, 7))
    assert edges_of(VIEWS[name](base, 8)) != first
    wide = VIEWS[name](relation(symmetric, dtype=np.int64), 7)
    assert wide.indices.dtype == np.int64 and edges_of(wide) == first
    monkeypatch.setattr(views, "_EDGES_AT_ONCE", 13)
    np.random.default_rng(3).random(5)
    assert edges_of(VIEWS[name](base, 7)) == first


def test_views_of_one_seed_and_other_names_are_independent() -> None:
    base, num = relation(), relation().num_edges // 2
    one, other = (edges_of(drop_edges(base, 0.5, 7, view=view)) for view in ("first", "second"))
    # Of edges that one view keeps, the other keeps half: Binomial(kept, 1/2) undirected edges.
    kept = len(one) // 2
    assert abs(len(set(one) & set(other)) / 2 - kept / 2) < 5 * np.sqrt(kept) / 2
    assert 0.3 * num < kept < 0.7 * num
    assert drop_edges(base, 0.5, 7, view="first").name == "base~first"


def test_an_edge_keeps_its_fate_when_others_come_and_go() -> None:
    base = relation()
    fewer = relation_of("base", SYMMETRIC_EDGES[: len(SYMMETRIC_EDGES) // 2], N, symmetric=True)
    whole, part = edges_of(drop_edges(base, 0.3, 1)), edges_of(drop_edges(fewer, 0.3, 1))
    assert set(part) == set(whole) & set(edges_of(fewer))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_the_rate_of_dropped_edges_over_all_and_of_each_edge(rate: float, symmetric: bool) -> None:
    base, seeds = relation(symmetric), 400
    every = sorted(edges_of(base))
    if symmetric:
        every = [edge for edge in every if edge[0] < edge[1]]
    place = {edge: index for index, edge in enumerate(every)}
    dropped = np.full(len(every), seeds)
    for seed in range(seeds):
        stays = [place[edge] for edge in edges_of(drop_edges(base, rate, seed)) if edge in place]
        dropped[stays] -= 1
    spread = np.sqrt(rate * (1 - rate) * seeds)
    z = (dropped - rate * seeds) / spread
    assert np.abs(z).max() < stats.norm.isf(1e-4 / (2 * len(z)))
    assert abs(z.sum() / np.sqrt(len(z))) < stats.norm.isf(1e-4 / 2)
    assert z.std() == pytest.approx(1, abs=0.2)  # neither all alike nor balanced on purpose


@pytest.mark.parametrize("symmetric", [True, False])
def test_nodes_lose_all_edges_or_none(symmetric: bool) -> None:
    base, rate, seeds = relation(symmetric), 0.25, 300
    before = edges_of(base)
    lost = np.zeros(N)
    for seed in range(seeds):
        after = set(edges_of(drop_nodes(base, rate, seed)))
        # A node that keeps an edge is there; so is, then, every edge between two nodes that are there.
        there = {node for edge in after for node in edge}
        assert after == {edge for edge in before if set(edge) <= there}
        stays = uniform(stream_key(seed, "drop_nodes"), np.arange(N)) >= rate
        assert there <= set(np.flatnonzero(stays).tolist())
        lost += ~stays
    z = (lost - rate * seeds) / np.sqrt(rate * (1 - rate) * seeds)
    assert np.abs(z).max() < stats.norm.isf(1e-4 / (2 * N))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("keep_rate", [0.001, 0.1, 0.2, 0.55, 1.0])
def test_the_number_kept_by_degree_is_exact(keep_rate: float, symmetric: bool) -> None:
    base = relation(symmetric)
    unit = 2 if symmetric else 1
    for seed in range(10):
        kept = drop_edges_by_degree(base, keep_rate, seed).num_edges
        assert kept == unit * round(keep_rate * base.num_edges / unit)


def multinomial_without_replacement(probability: np.ndarray, count: int) -> np.ndarray:
    """Probability of each place to be among `count` draws, by adding up all sequences of draws."""
    found = np.zeros(len(probability))
    for sequence in itertools.permutations(range(len(probability)), count):
        chance, left = 1.0, 1.0
        for place in sequence:
            chance *= probability[place] / left
            left -= probability[place]
        found[list(sequence)] += chance
    return found


@pytest.mark.parametrize("symmetric", [True, False])
def test_pruning_by_degree_is_multinomial_without_replacement(symmetric: bool) -> None:
    # Users 0 – 2 and items 3 – 6: a popular item, an active user, and an edge apart from all others.
    pairs = [(0, 3), (0, 4), (0, 5), (1, 3), (2, 3), (1, 6)]
    edges = [*pairs, *((i, u) for u, i in pairs)] if symmetric else pairs
    base, degree = relation_of("base", edges, 7, symmetric=symmetric), np.bincount(np.ravel(pairs))
    wanted = np.array([1 / np.sqrt(degree[u] * degree[i]) for u, i in pairs])
    chance = multinomial_without_replacement(wanted / wanted.sum(), 3)
    assert chance.max() - chance.min() > 0.15
    seeds, kept = 6_000, np.zeros(len(pairs))
    for seed in range(seeds):
        after = edges_of(drop_edges_by_degree(base, 0.5, seed))
        assert len(after) == (6 if symmetric else 3)
        kept += [pair in after for pair in pairs]
    z = (kept - chance * seeds) / np.sqrt(chance * (1 - chance) * seeds)
    assert np.abs(z).max() < stats.norm.isf(1e-4 / (2 * len(pairs)))


def test_equal_arrival_times_are_settled_by_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "uniform", lambda key, numbers: np.full(len(numbers), 0.5))
    complete = relation_of("base", both_directions(itertools.product(range(4), range(5)), 4), 9, symmetric=True)
    after = edges_of(drop_edges_by_degree(complete, 0.35, 0))
    wanted = sorted(both_directions(itertools.product(range(4), range(5)), 4), key=sorted)[: 2 * 7]
    assert set(after) == set(wanted)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_factors_of_weight_noise_are_normal(weighted: bool) -> None:
    base = relation(True, weighted)
    before, factors = edges_of(base), []
    for seed in range(30):
        after = edges_of(weight_noise(base, 0.2, seed))
        factors += [after[edge] / before[edge] for edge in before if edge[0] < edge[1]]
    assert np.mean(factors) == pytest.approx(1, abs=4 * 0.2 / np.sqrt(len(factors)))
    assert np.std(factors) == pytest.approx(0.2, abs=4 * 0.2 / np.sqrt(2 * len(factors)))
    assert stats.kstest((np.array(factors) - 1) / 0.2, "norm").pvalue > 1e-4


def test_large_noise_stops_at_zero() -> None:
    weight = np.concatenate([weight_noise(relation(), 3.0, seed).weight for seed in range(20)])
    assert weight.min() == 0.0
    # P(1 + 3 ε < 0) = Φ(−1/3).
    assert (weight == 0).mean() == pytest.approx(stats.norm.cdf(-1 / 3), abs=0.02)


def test_no_change_at_all() -> None:
    base = relation(weighted=True)
    unchanged = [drop_edges(base, 0.0, 1), drop_nodes(base, 0.0, 1), drop_edges_by_degree(base, 1.0, 1)]
    for view in [*unchanged, weight_noise(base, 0.0, 1)]:
        assert edges_of(view) == edges_of(base)


@pytest.mark.parametrize("name", VIEWS)
def test_a_relation_without_edges(name: str) -> None:
    view = VIEWS[name](relation_of("base", [], 5, symmetric=True), 1)
    assert (view.num_nodes, view.num_edges) == (5, 0)


@pytest.mark.parametrize("name", ["drop_edges", "drop_nodes", "drop_edges_by_degree"])
def test_a_view_is_normalised_by_its_own_degrees(name: str) -> None:
    view, h = VIEWS[name](relation(), 3), rows(5, N, 4)
    dense = adjacency(edges_of(view), N)
    assert view.in_degree.tolist() == dense.sum(1).tolist()
    (hop,) = FullGraph({"x": view}, device=CPU, kernel="dgl").neighbourhood([HopSpec(relation="x")], None).hops
    assert_near(hop.aggregate(h), normalised(dense) @ h.double().numpy())


def test_noisy_weights_are_normalised_by_their_sums() -> None:
    view, h = weight_noise(relation(), 0.3, 3), rows(5, N, 4)
    dense = np.zeros((N, N))
    for (source, destination), value in edges_of(view).items():
        dense[destination, source] = value
    scale = np.divide(1, np.sqrt(dense.sum(1)), out=np.zeros(N), where=dense.sum(1) > 0)
    (hop,) = FullGraph({"x": view}, device=CPU, kernel="dgl").neighbourhood([HopSpec(relation="x")], None).hops
    assert_near(hop.aggregate(h), scale[:, None] * dense * scale @ h.double().numpy())


def test_final_weights_stay_final() -> None:
    base = relation(weighted=True)
    final = Relation("f", base.indptr, base.indices, symmetric=True, weight=base.weight, weights_are_final=True)
    view = drop_edges(final, 0.5, 1)
    assert view.weights_are_final
    assert torch.equal(view.inverse_sqrt_in_degree, torch.ones(N))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda base: drop_edges(base, 1.0, 0), r"rate must be within \[0, 1\), not 1\.0"),
        (lambda base: drop_edges(base, -0.1, 0), r"rate must be within \[0, 1\), not -0\.1"),
        (lambda base: drop_nodes(base, float("nan"), 0), r"rate must be within \[0, 1\), not nan"),
        (lambda base: drop_edges_by_degree(base, 0.0, 0), r"keep_rate must be within \(0, 1\], not 0\.0"),
        (lambda base: drop_edges_by_degree(base, 1.01, 0), r"keep_rate must be within \(0, 1\], not 1\.01"),
        (lambda base: weight_noise(base, -1.0, 0), r"std must be within \[0, ∞\), not -1\.0"),
    ],
)
def test_bad_rates(call: Callable[[Relation], Relation], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(relation())


def test_splitmix64_is_the_published_one() -> None:
    # The first outputs of the generator for state 1234567, as published with its reference implementation.
    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + step * golden) % 2**64 for step in range(5)], dtype=np.uint64)
    assert splitmix64(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_hashed_numbers_are_uniform_normal_and_uncorrelated() -> None:
    numbers = np.arange(200_000)
    draws = [uniform(stream_key(seed, "x"), numbers) for seed in range(2)]
    assert min(d.min() for d in draws) > 0 and max(d.max() for d in draws) < 1
    for drawn in draws:
        assert stats.kstest(drawn, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 4 / np.sqrt(len(numbers))
    assert abs(np.corrcoef(*draws)[0, 1]) < 4 / np.sqrt(len(numbers))
    assert stats.kstest(normal(stream_key(0, "y"), numbers), "norm").pvalue > 1e-3
    bits = np.unpackbits(hashed(stream_key(0, "x"), numbers).view(np.uint8)).reshape(-1, 64).mean(0)
    assert np.abs(bits - 0.5).max() < 4.5 / (2 * np.sqrt(len(numbers)))


def test_keys_tell_names_and_seeds_apart() -> None:
    keys = {int(stream_key(seed, *names)) for seed in (0, 1, -1, 2**70) for names in [(), ("a",), ("a", "b"), ("ab",)]}
    assert len(keys) == 16
