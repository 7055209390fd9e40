"""Item–item relations and their combination, against matrices written down entry by entry."""

import numpy as np
import pytest
import torch
from graph_oracles import CPU, assert_near, random_edges, relation_of, rows

from braidrec.graph.content import combined_relation, content_relation
from braidrec.graph.knn import Neighbours, content_neighbours
from braidrec.graph.neighbourhood import FullGraph, HopSpec, SampledSubgraph
from braidrec.graph.relation import Relation

U, I, K = 4, 30, 3  # noqa: E741
N = U + I


def neighbours(seed: int, k: int = K) -> Neighbours:
    """Of random features; item 7 has none, and few features leave many similarities below zero."""
    features = np.random.default_rng(seed).normal(size=(I, 2)).astype(np.float32)
    present = np.ones(I, dtype=bool)
    present[7] = False
    return content_neighbours(features, present, k, device=CPU)


def dense_adjacency(found: Neighbours, weight: str) -> np.ndarray:
    matrix = np.zeros((I, I))
    for item in range(I):
        for other, similarity in zip(found.indices[item].tolist(), found.similarity[item].tolist(), strict=True):
            if other >= 0 and (weight == "binary" or similarity > 0):
                matrix[item, other] = 1.0 if weight == "binary" else similarity
    return matrix


def over_all_nodes(items: np.ndarray) -> np.ndarray:
    matrix = np.zeros((N, N))
    matrix[U:, U:] = items
    return matrix


def by_row_sums(matrix: np.ndarray) -> np.ndarray:
    found, sums = np.zeros_like(matrix), matrix.sum(1)
    for i, j in zip(*np.nonzero(matrix), strict=True):
        found[i, j] = matrix[i, j] / np.sqrt(sums[i] * sums[j])
    return found


def applied(relation: Relation, kernel: str = "dgl", normalise: str = "symmetric") -> np.ndarray:
    """The matrix by which a whole hop multiplies, read off from unit vectors."""
    (hop,) = FullGraph({"x": relation}, device=CPU, kernel=kernel).neighbourhood([HopSpec(relation="x")], None).hops
    return hop.aggregate(torch.eye(N), normalise=normalise).double().numpy()


@pytest.mark.parametrize(("weight", "k"), [("binary", 20), ("similarity", 20), ("similarity", 4)])
@pytest.mark.parametrize("kernel", ["dgl", "torch"])
def test_as_published_directed_and_normalised_by_row_sums(weight: str, k: int, kernel: str) -> None:
    found = neighbours(1, k)
    assert (found.similarity < 0).any() == (k == 20)
    relation = content_relation(found, U, "visual", weight=weight)
    assert (relation.name, relation.symmetric, relation.num_nodes) == ("content/visual", False, N)
    wanted = over_all_nodes(by_row_sums(dense_adjacency(found, weight)))
    # All neighbours of positive similarity are mutual; the nearest few are not.
    assert ((wanted > 0) != (wanted.T > 0)).any() == ((weight, k) != ("similarity", 20))
    for normalise in ("symmetric", "mean", "sum"):
        np.testing.assert_allclose(applied(relation, kernel, normalise), wanted, rtol=1e-6, atol=1e-9)
    assert not relation.in_degree[:U].any() and not relation.in_degree[U + 7]
    assert not np.isin(relation.indices, [0, 1, 2, 3, U + 7]).any()


def test_with_k_neighbours_everywhere_the_published_weight_is_one_kth() -> None:
    relation = content_relation(neighbours(2), U, "text")
    np.testing.assert_allclose(relation.weight, np.full((I - 1) * K, 1 / K), rtol=1e-6)


@pytest.mark.parametrize("weight", ["binary", "similarity"])
def test_either_direction(weight: str) -> None:
    found = neighbours(3)
    relation = content_relation(found, U, "visual", weight=weight, direction="either")
    one_way = dense_adjacency(found, weight)
    both = np.maximum(one_way, one_way.T)
    assert (both != one_way).any() and relation.symmetric and not relation.weights_are_final
    assert (relation.weight is None) == (weight == "binary")
    np.testing.assert_allclose(applied(relation), over_all_nodes(by_row_sums(both)), rtol=1e-6, atol=1e-9)


def test_in_neighbours_are_sorted() -> None:
    for direction in ("directed", "either"):
        relation = content_relation(neighbours(4), U, "visual", direction=direction)
        assert relation.indptr.dtype == relation.indices.dtype == np.int32
        for node in range(N):
            assert (np.diff(relation.indices[relation.indptr[node] : relation.indptr[node + 1]]) > 0).all()


def test_nobody_has_neighbours() -> None:
    nothing = content_neighbours(np.ones((I, 2), dtype=np.float32), np.zeros(I, dtype=bool), K, device=CPU)
    for direction in ("directed", "either"):
        relation = content_relation(nothing, U, "audio", direction=direction)
        assert (relation.num_nodes, relation.num_edges) == (N, 0)
        assert not applied(relation).any()


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
def test_a_weighted_sum_of_modalities(kernel: str) -> None:
    visual, text = neighbours(5), neighbours(6, k=5)
    relations = {
        "visual": content_relation(visual, U, "visual"),
        "text": content_relation(text, U, "text", weight="similarity"),
        "social": relation_of("social", random_edges(7, range(N), 90), N),
    }
    weights = {"visual": 0.1, "text": 0.9, "social": 0.5}
    combined = combined_relation(relations, weights)
    social = np.zeros((N, N))
    for source, destination in random_edges(7, range(N), 90):
        social[destination, source] = 1.0
    normalised = np.zeros((N, N))
    for v, u in zip(*np.nonzero(social), strict=True):
        normalised[v, u] = 1 / np.sqrt(social[v].sum() * social[:, u].sum())
    wanted = (
        0.1 * over_all_nodes(by_row_sums(dense_adjacency(visual, "binary")))
        + 0.9 * over_all_nodes(by_row_sums(dense_adjacency(text, "similarity")))
        + 0.5 * normalised
    )
    assert (combined.name, combined.weights_are_final, combined.symmetric) == ("content", True, False)
    assert combined.num_edges == (wanted != 0).sum()
    np.testing.assert_allclose(applied(combined, kernel), wanted, rtol=2e-6, atol=1e-9)
    # One hop over it is the sum of a hop over each.
    parts = sum(weights[name] * applied(relation, kernel) for name, relation in relations.items())
    np.testing.assert_allclose(applied(combined, kernel), parts, rtol=2e-6, atol=1e-7)


def test_the_order_of_the_modalities_does_not_matter() -> None:
    relations = {name: content_relation(neighbours(seed, k=6), U, name) for seed, name in enumerate("abc")}
    weights = {"a": 0.3, "b": 0.3, "c": 0.4}
    one = combined_relation(relations, weights)
    other = combined_relation(dict(reversed(relations.items())), dict(reversed(weights.items())))
    np.testing.assert_array_equal(one.weight, other.weight)
    np.testing.assert_array_equal(one.indices, other.indices)


def test_undirected_ones_give_an_undirected_one_to_the_last_bit() -> None:
    relations = {
        name: content_relation(neighbours(seed, k=4), U, name, weight=weight, direction="either")
        for seed, (name, weight) in enumerate([("visual", "similarity"), ("text", "binary"), ("audio", "similarity")])
    }
    combined = combined_relation(relations, {"visual": 0.7, "text": 0.2, "audio": 0.1})
    assert combined.symmetric
    dense = np.zeros((N, N), dtype=np.float32)
    dense[np.repeat(np.arange(N), np.diff(combined.indptr)), combined.indices] = combined.weight
    np.testing.assert_array_equal(dense, dense.T)


def test_edges_of_weight_zero_are_left_out() -> None:
    relations = {name: content_relation(neighbours(seed), U, name) for seed, name in enumerate(("visual", "text"))}
    combined = combined_relation(relations, {"visual": 1.0, "text": 0.0})
    np.testing.assert_array_equal(combined.indices, relations["visual"].indices)
    assert combined_relation(relations, {"visual": 0.0, "text": 0.0}).num_edges == 0


def test_combined_relations_can_be_sampled() -> None:
    relations = {name: content_relation(neighbours(seed), U, name) for seed, name in enumerate(("visual", "text"))}
    combined = combined_relation(relations, {"visual": 0.5, "text": 0.5})
    seeds = torch.tensor([U + 3, U + 7, 0, U + 20])
    source = SampledSubgraph({"content": combined}, device=CPU, kernel="dgl")
    (hop,) = source.neighbourhood([HopSpec(relation="content")], seeds).hops
    h = rows(1, N, 5)
    assert_near(hop.aggregate(h[hop.src_nodes]), (applied(combined) @ h.double().numpy())[seeds.numpy()])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"visual": 1.0}, r"weights are for \['visual'\], relations for \['text', 'visual'\]"),
        ({"visual": 1.0, "text": -0.5}, "the weight of 'text' must be a finite number not below 0, not -0.5"),
        ({"visual": float("nan"), "text": 1.0}, "the weight of 'visual' must be .* not nan"),
    ],
)
def test_weights_that_do_not_fit(weights: dict[str, float], message: str) -> None:
    relations = {name: content_relation(neighbours(seed), U, name) for seed, name in enumerate(("visual", "text"))}
    with pytest.raises(ValueError, match=message):
        combined_relation(relations, weights)


def test_other_bad_input() -> None:
    found = neighbours(1)
    relations = {"a": content_relation(found, U, "a"), "b": content_relation(found, U + 1, "b")}
    with pytest.raises(ValueError, match=rf"over the same nodes, but have {{'a': {N}, 'b': {N + 1}}}"):
        combined_relation(relations, {"a": 1.0, "b": 1.0})
    with pytest.raises(ValueError, match="one weight a relation"):
        combined_relation({}, {})
    with pytest.raises(ValueError, match="weight must be 'binary' or 'similarity', not 'cosine'"):
        content_relation(found, U, "a", weight="cosine")
    with pytest.raises(ValueError, match="direction must be 'directed' or 'either', not 'both'"):
        content_relation(found, U, "a", direction="both")
