"""Building relations, their degrees, and looking edges up."""

import networkx
import numpy as np
import pytest
import scipy.sparse
import torch
from graph_oracles import adjacency, both_directions, random_edges, random_pairs, relation_of
from hypothesis import given, settings
from hypothesis import strategies as st

from braidrec.graph.build import build_interactions
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
    assert relation.in_degree[NUM_USERS - 1] == relation.in_degree[-1] == 0  # isolated on either side


def test_edges_are_those_given_in_both_directions_and_sorted() -> None:
    relation = built(PAIRS)
    matrix = scipy.sparse.csr_matrix((np.ones(relation.num_edges), relation.indices, relation.indptr)).toarray()
    wanted = adjacency(both_directions(PAIRS, NUM_USERS), NUM_USERS + NUM_ITEMS)
    np.testing.assert_array_equal(np.pad(matrix, ((0, 0), (0, len(wanted) - matrix.shape[1]))), wanted)
    for node in range(relation.num_nodes):
        row = relation.indices[relation.indptr[node] : relation.indptr[node + 1]]
        assert (np.diff(row) > 0).all()


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


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_edge_ids_against_a_dictionary(dtype: type) -> None:
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
