"""Users with most items in common, and items with most users, against sets of Python."""

import math

import numpy as np
import pytest
import torch
from graph_oracles import CPU, random_pairs

from braidrec.graph import co_interaction
from braidrec.graph.build import build_interactions
from braidrec.graph.co_interaction import co_interaction_neighbours, co_interaction_relation, co_interactions
from braidrec.graph.neighbourhood import FullGraph, HopSpec
from braidrec.graph.relation import Relation

U, I = 40, 30  # noqa: E741
PAIRS = random_pairs(5, U, I, 260)
SIDES = ["users", "items"]


def interactions(dtype: type = np.int32) -> Relation:
    users, items = np.array(PAIRS).T
    built = build_interactions(users, items, U, I)
    return Relation(built.name, built.indptr.astype(dtype), built.indices.astype(dtype), symmetric=True)


def histories(side: str) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in range(U if side == "users" else I)]
    for user, item in PAIRS:
        if side == "users":
            found[user].add(item)
        else:
            found[item].add(user)
    return found


def by_sets(side: str, k: int) -> list[list[tuple[int, int]]]:
    """`(neighbour, count)` of every row, best first."""
    sets = histories(side)
    result = []
    for row, mine in enumerate(sets):
        common = [(-len(mine & theirs), other) for other, theirs in enumerate(sets) if other != row and mine & theirs]
        result.append([(other, -count) for count, other in sorted(common)[:k]])
    return result


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("pairs_at_once", [1, 50, 333, 1 << 23])
@pytest.mark.parametrize("k", [1, 4, 100])
@pytest.mark.parametrize("side", SIDES)
def test_neighbours_and_counts(side: str, k: int, pairs_at_once: int, dtype: type) -> None:
    indices, counts = co_interactions(interactions(dtype), U, k, side=side, pairs_at_once=pairs_at_once)
    for row, wanted in enumerate(by_sets(side, k)):
        missing = k - len(wanted)
        assert indices[row].tolist() == [other for other, _ in wanted] + [-1] * missing
        assert counts[row].tolist() == [count for _, count in wanted] + [0] * missing
    assert (indices[-1] == -1).all()  # the last one has no interactions


def test_few_bits_for_rows_make_smaller_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(co_interaction._Key, "most_rows", property(lambda self: 3))
    assert co_interactions(interactions(), U, 4).indices[:, 0].tolist() == [
        row[0][0] if row else -1 for row in by_sets("users", 4)
    ]


def test_keys_have_room_for_rows_of_large_data() -> None:
    # A hundred million users, one of whom has a million interactions: 20 + 27 bits leave 2¹⁷ rows a tile.
    key = co_interaction._Key(highest_count=10**6, count_bits=20, index_bits=27)
    assert key.most_rows == 2**17


@pytest.mark.parametrize("side", SIDES)
def test_the_relation_is_over_the_joint_nodes(side: str) -> None:
    k, first = 4, 0 if side == "users" else U
    relation = co_interaction_relation(interactions(), U, k, side=side)
    assert (relation.name, relation.symmetric, relation.weight) == ("co_interaction", False, None)
    assert relation.num_nodes == U + I and relation.indices.dtype == np.int32
    wanted = {first + row: sorted(first + other for other, _ in found) for row, found in enumerate(by_sets(side, k))}
    for node in range(U + I):
        found = relation.indices[relation.indptr[node] : relation.indptr[node + 1]].tolist()
        assert found == wanted.get(node, [])


@pytest.mark.parametrize("normalise", ["symmetric", "mean", "sum"])
@pytest.mark.parametrize("side", SIDES)
def test_softmax_weights_are_final(side: str, normalise: str) -> None:
    first = 0 if side == "users" else U
    wanted = np.zeros((U + I, U + I))
    for row, found in enumerate(by_sets(side, 5)):
        total = sum(math.exp(count) for _, count in found)
        for other, count in found:
            wanted[first + row, first + other] = math.exp(count) / total
    relation = co_interaction_relation(interactions(), U, 5, side=side, weight="softmax")
    (hop,) = FullGraph({"x": relation}, device=CPU, kernel="dgl").neighbourhood([HopSpec(relation="x")], None).hops
    out = hop.aggregate(torch.eye(U + I), normalise=normalise).double().numpy()
    np.testing.assert_allclose(out, wanted, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(out.sum(1)[relation.in_degree.numpy() > 0], 1.0, rtol=1e-6)


@pytest.mark.parametrize("side", SIDES)
def test_cosine_weights(side: str) -> None:
    first, sets = 0 if side == "users" else U, histories(side)
    wanted = {
        (first + row, first + other): count / math.sqrt(len(sets[row]) * len(sets[other]))
        for row, found in enumerate(by_sets(side, 5))
        for other, count in found
    }
    relation = co_interaction_relation(interactions(), U, 5, side=side, weight="cosine")
    assert not relation.weights_are_final
    destinations = np.repeat(np.arange(U + I), np.diff(relation.indptr)).tolist()
    found = dict(zip(zip(destinations, relation.indices.tolist(), strict=True), relation.weight.tolist(), strict=True))
    assert found == pytest.approx(wanted, rel=1e-6)


def test_counts_far_apart_do_not_overflow_the_softmax() -> None:
    # User 0 shares 2,000 items with user 1 and one with user 2.
    users = np.concatenate([np.zeros(2000, int), np.ones(2000, int), [0, 2]])
    items = np.concatenate([np.arange(2000), np.arange(2000), [2000, 2000]])
    relation = co_interaction_relation(build_interactions(users, items, 3, 2001), 3, 2, weight="softmax")
    assert np.isfinite(relation.weight).all()
    assert relation.indices[: relation.indptr[1]].tolist() == [1] and relation.weight[0] == 1.0


def test_no_interactions_at_all() -> None:
    empty = build_interactions(np.empty(0, int), np.empty(0, int), 3, 2)
    for side in SIDES:
        for weight in ("none", "softmax", "cosine"):
            relation = co_interaction_relation(empty, 3, 4, side=side, weight=weight)
            assert (relation.num_nodes, relation.num_edges) == (5, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": "both"}, "side must be 'users' or 'items', not 'both'"),
        ({"weight": "count"}, "weight must be 'none', 'softmax' or 'cosine', not 'count'"),
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"pairs_at_once": 0}, "pairs_at_once must be at least 1, not 0"),
    ],
)
def test_bad_input(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        co_interaction_relation(interactions(), **{"num_users": U, "k": 3, **changes})


@pytest.mark.parametrize("pairs_at_once", [1, 50, 1 << 23])
@pytest.mark.parametrize("shrinkage", [0.0, 2.5])
@pytest.mark.parametrize("k", [1, 4, 100])
@pytest.mark.parametrize("side", SIDES)
def test_neighbours_by_cosine(side: str, k: int, shrinkage: float, pairs_at_once: int) -> None:
    found = co_interaction_neighbours(interactions(), U, k, side=side, shrinkage=shrinkage, pairs_at_once=pairs_at_once)
    sets = histories(side)
    for row, mine in enumerate(sets):
        similar = [
            (-len(mine & theirs) / (math.sqrt(len(mine) * len(theirs)) + shrinkage), other)
            for other, theirs in enumerate(sets)
            if other != row and mine & theirs
        ]
        wanted = sorted(similar)[:k]
        missing = k - len(wanted)
        assert found.indices[row].tolist() == [other for _, other in wanted] + [-1] * missing
        np.testing.assert_allclose(found.similarity[row], [-value for value, _ in wanted] + [0.0] * missing, rtol=1e-6)


def test_shrinkage_takes_back_what_stands_on_one_user() -> None:
    """Item 1 has one user, who has item 0; item 2 has ten, of whom three do: .5 against 3 / √40."""
    users, items = np.array([(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), *((user, 2) for user in range(1, 11))]).T
    relation = build_interactions(users, items, 11, 3)
    plain = co_interaction_neighbours(relation, 11, 2)
    shrunk = co_interaction_neighbours(relation, 11, 2, shrinkage=10.0)
    assert plain.indices[0].tolist() == [1, 2] and shrunk.indices[0].tolist() == [2, 1]
    assert plain.similarity[0].tolist() == pytest.approx([0.5, 3 / math.sqrt(40)])
    assert shrunk.similarity[0].tolist() == pytest.approx([3 / (math.sqrt(40) + 10), 1 / 12])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be at least 1, not 0"),
        ({"shrinkage": -1.0}, r"shrinkage must be a finite number of at least 0, not -1\.0"),
        ({"side": "nodes"}, "side must be 'users' or 'items', not 'nodes'"),
    ],
)
def test_neighbours_that_cannot_be(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        co_interaction_neighbours(interactions(), U, **{"k": 3, **options})
