"""Building relations, their degrees, and looking edges up."""

import os
import subprocess
import sys

import networkx
import numpy as np
import pytest
import scipy.sparse
import torch
from graph_oracles import adjacency, both_directions, random_edges, random_pairs, relation_of
from hypothesis import given, settings
from hypothesis import strategies as st

from braidrec.graph.build import build_interactions, build_interactions_from
from braidrec.graph.relation import bisect_rows, inverse_power

NUM_USERS, NUM_ITEMS = 13, 9
PAIRS = random_pairs(3, NUM_USERS, NUM_ITEMS, 60)


def built(pairs: list[tuple[int, int]], num_users: int = NUM_USERS, num_items: int = NUM_ITEMS):
    users, items = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return build_interactions(users, items, num_users, num_items)


def test_degrees_are_networkx_degrees() -> None:
    graph = networkx.Graph()
    graph.add_nodes_from(range(NUM_USERS + NUM_ITEMS))
    graph.add_edges_from((user, NUM_USERS + item) for user, item in PAIRS)
    relation = built(PAIRS)
    assert relation.in_degree.tolist() == relation.out_degree.tolist() == [d for _, d in sorted(graph.degree)]
    assert relation.num_edges == 2 * graph.number_of_edges() < 2 * len(PAIRS)  # repeated pairs became one
    some = torch.tensor([3, NUM_USERS + 1, 0, 3])
    assert relation.in_degree_of(some).tolist() == [graph.degree[node] for node in some.tolist()]
    assert relation.in_degree[NUM_USERS - 1] == relation.in_degree[-1] == 0  # isolated on either side


def test_edges_are_those_given_in_both_directions_and_sorted() -> None:
    relation = built(PAIRS)
    matrix = scipy.sparse.csr_matrix((np.ones(relation.num_edges), relation.indices, relation.indptr)).toarray()
    wanted = adjacency(both_directions(PAIRS, NUM_USERS), NUM_USERS + NUM_ITEMS)
    np.testing.assert_array_equal(np.pad(matrix, ((0, 0), (0, len(wanted) - matrix.shape[1]))), wanted)
    for node in range(relation.num_nodes):
        row = relation.indices[relation.indptr[node] : relation.indptr[node + 1]]
        assert (np.diff(row) > 0).all()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_interactions_that_arrive_piece_by_piece(size: int) -> None:
    users, items = np.array(PAIRS, dtype=np.int32).T
    pieces = [(users[at : at + size], items[at : at + size]) for at in range(0, len(PAIRS), size)]
    wanted, found = built(PAIRS), build_interactions_from(iter(pieces), len(PAIRS), NUM_USERS, NUM_ITEMS)
    np.testing.assert_array_equal(found.indptr, wanted.indptr)
    np.testing.assert_array_equal(found.indices, wanted.indices)
    for announced in (len(PAIRS) - 1, len(PAIRS) + 1):
        with pytest.raises(ValueError, match=f"{len(PAIRS)} interactions arrived, {announced} were announced"):
            build_interactions_from(iter(pieces), announced, NUM_USERS, NUM_ITEMS)


_PEAK = """
import numpy as np
from braidrec.graph.build import build_interactions_from

def peak_kib():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

USERS, ITEMS, ROWS, PIECE = 60_000, 40_000, 5_000_000, 250_000

def pieces():
    for piece in range(ROWS // PIECE):
        random = np.random.default_rng(piece)
        yield random.integers(0, USERS, PIECE, np.int32), random.integers(0, ITEMS, PIECE, np.int32)

build_interactions_from(((np.zeros(9, np.int32),) * 2 for _ in range(1)), 9, USERS, ITEMS)
before = peak_kib()
build_interactions_from(pieces(), ROWS, USERS, ITEMS)
print((peak_kib() - before) * 1024 / ROWS)
"""


@pytest.mark.slow
def test_memory_at_the_peak() -> None:
    """17 bytes an interaction are promised, of which the result is 8; some more for pieces and allocation."""
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run([sys.executable, "-c", _PEAK], env=environment, capture_output=True, text=True, check=True)
    assert 8 < float(done.stdout) < 21


def test_a_pair_repeated_256_times_is_one_edge() -> None:
    relation = built([(0, 0)] * 256 + [(1, 1)], 2, 2)
    assert relation.in_degree.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32])
def test_small_graphs_are_int32_whatever_the_input(dtype: type) -> None:
    relation = build_interactions(np.array([0, 1], dtype=dtype), np.array([1, 0], dtype=dtype), 2, 2)
    assert relation.indptr.dtype == relation.indices.dtype == np.int32
    assert relation.indices.tolist() == [3, 2, 1, 0]


def test_empty_graph() -> None:
    relation = built([], 2, 3)
    assert (relation.num_nodes, relation.num_edges) == (5, 0)
    assert relation.in_degree.tolist() == [0] * 5
    assert relation.inverse_sqrt_in_degree.tolist() == [0.0] * 5
    assert relation.edge_ids(np.array([0, 3]), np.array([3, 0])).tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((13, 0), "user index 13 is outside 0 … 12"),
        ((-1, 0), "user index -1 is outside 0 … 12"),
        ((0, 9), "item index 9 is outside 0 … 8"),
        ((0, -2), "item index -2 is outside 0 … 8"),
    ],
)
def test_index_out_of_range(pair: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        built([*PAIRS, pair])


def test_in_and_out_degrees_of_a_directed_relation() -> None:
    edges = random_edges(5, range(20), 70)
    graph = networkx.DiGraph(edges)
    graph.add_nodes_from(range(20))
    relation = relation_of("also_viewed", edges, 20)
    assert relation.in_degree.tolist() == [graph.in_degree(node) for node in range(20)]
    assert relation.out_degree.tolist() == [graph.out_degree(node) for node in range(20)]
    assert relation.in_degree.tolist() != relation.out_degree.tolist()
    wanted = [1 / np.sqrt(d) if d else 0.0 for d in relation.out_degree.tolist()]
    np.testing.assert_allclose(relation.inverse_sqrt_out_degree.numpy(), wanted, rtol=1e-7)


def test_inverse_power_of_zero_is_zero() -> None:
    np.testing.assert_allclose(inverse_power(torch.tensor([0, 1, 4, 16]), 0.5).numpy(), [0.0, 1.0, 0.5, 0.25])
    np.testing.assert_allclose(inverse_power(torch.tensor([0, 2, 8]), 1.0).numpy(), [0.0, 0.5, 0.125])


@pytest.mark.parametrize("keyed", [0, 10_000])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_edge_ids_against_a_dictionary(monkeypatch: pytest.MonkeyPatch, dtype: type, keyed: int) -> None:
    """Found by keys of all edges, and row by row."""
    monkeypatch.setattr("braidrec.graph.relation.KEYED_EDGES", keyed)
    edges = random_edges(8, range(15), 60)
    relation = relation_of("also_viewed", edges, 15, dtype=dtype)
    place = {(s, d): i for i, (d, s) in enumerate(sorted({(d, s) for s, d in edges}))}
    sources, destinations = (grid.reshape(-1) for grid in np.meshgrid(np.arange(15), np.arange(15)))
    wanted = [place.get(pair, -1) for pair in zip(sources.tolist(), destinations.tolist(), strict=True)]
    assert -1 in wanted and max(wanted) == relation.num_edges - 1
    assert relation.edge_ids(sources, destinations).tolist() == wanted


@st.composite
def _rows_and_queries(draw: st.DrawFn) -> tuple[list[list[int]], list[tuple[int, int]]]:
    values = st.integers(-3, 40)
    table = draw(st.lists(st.lists(values, max_size=20, unique=True).map(sorted), min_size=1, max_size=8))
    return table, draw(st.lists(st.tuples(st.integers(0, len(table) - 1), st.integers(-5, 45)), max_size=20))


@settings(max_examples=150, deadline=None)
@given(_rows_and_queries(), st.sampled_from([np.int32, np.int64]))
def test_bisect_rows_is_searchsorted_in_every_row(
    rows_and_queries: tuple[list[list[int]], list[tuple[int, int]]], dtype: type
) -> None:
    table, queries = rows_and_queries
    indptr = np.cumsum([0, *map(len, table)]).astype(dtype)
    indices = np.array([value for row in table for value in row], dtype=dtype)
    asked = np.array(queries, dtype=np.int64).reshape(-1, 2)
    wanted = [int(indptr[row]) + int(np.searchsorted(np.array(table[row]), value)) for row, value in queries]
    assert bisect_rows(indptr, indices, asked[:, 0], asked[:, 1]).tolist() == wanted
