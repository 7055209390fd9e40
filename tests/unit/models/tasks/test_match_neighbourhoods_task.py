"""Common neighbours predicted by the cosine of vectors, pair by pair."""

from math import sqrt

import numpy as np
import pytest
import torch
from composed_oracle import FEATURES, RELATIONS, vectors_of
from dense_oracles import ITEMS, NUM_ITEMS, NUM_USERS, USERS
from item_graph_world import assert_everything_learns, assert_modes_agree, assert_ranks_add_up
from task_world import BATCHES, ITEMS_OF, USERS_OF, WEIGHT, assert_term, cosine, terms_of, with_task

from braidrec.config.model import FusionConfig
from braidrec.config.self_supervision import NeighbourhoodSimilarityConfig
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.tasks.match_neighbourhoods import overlaps

NEIGHBOURS = {
    **{user: {NUM_USERS + int(item) for item in ITEMS[user == USERS]} for user in range(NUM_USERS)},
    **{NUM_USERS + item: {int(user) for user in USERS[item == ITEMS]} for item in range(NUM_ITEMS)},
}


def similarity(one: int, other: int) -> float:
    both = NEIGHBOURS[one], NEIGHBOURS[other]
    return len(both[0] & both[1]) / sqrt(len(both[0]) * len(both[1])) if all(both) else 0.0


def losses(vectors: np.ndarray, nodes: list[int]) -> list[float]:
    found = []
    for node in nodes:
        squares: dict[bool, list[float]] = {True: [], False: []}
        for other in nodes:
            if other != node:
                wanted = similarity(node, other)
                squares[wanted > 0].append((cosine(vectors[node], vectors[other]) - wanted) ** 2)
        found.append(sum(sum(kind) / len(kind) / 2 for kind in squares.values() if kind))
    return found


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("mode", ["full", "sampled"])
def test_every_pair_of_a_side_once_each_way(batch: str, mode: str) -> None:
    model = with_task(NeighbourhoodSimilarityConfig(weight=WEIGHT))
    tables, terms = terms_of(model, BATCHES[batch], mode)
    vectors = vectors_of(model, FusionConfig(), tables)
    assert_term(terms["extra/users"], losses(vectors, USERS_OF[batch]))
    assert_term(terms["extra/items"], losses(vectors, [NUM_USERS + item for item in ITEMS_OF[batch]]))


def test_one_side_alone() -> None:
    model = with_task(NeighbourhoodSimilarityConfig(weight=WEIGHT, target="users"))
    assert model.term_names == ("extra",)
    tables, terms = terms_of(model, BATCHES["six rows"])
    assert_term(terms["extra"], losses(vectors_of(model, FusionConfig(), tables), USERS_OF["six rows"]))


def test_overlaps_are_those_of_the_sets() -> None:
    nodes, others = torch.tensor([8, 0, 3, 11]), torch.tensor([2, 9, 10, 0, 8])
    found = overlaps(RELATIONS[INTERACTIONS], nodes, others)
    wanted = [[similarity(int(node), int(other)) for other in others] for node in nodes]
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert 0 < np.count_nonzero(found) < found.numel()


def test_everything_learns_and_modes_agree() -> None:
    model = with_task(NeighbourhoodSimilarityConfig())
    assert_everything_learns(model, RELATIONS, FEATURES)
    assert_modes_agree(model, RELATIONS, FEATURES)


def test_nodes_are_compared_with_those_of_all_workers() -> None:
    assert_ranks_add_up(with_task(NeighbourhoodSimilarityConfig(target="items")), RELATIONS, FEATURES)
