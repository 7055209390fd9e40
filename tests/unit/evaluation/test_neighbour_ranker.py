"""Scores by neighbouring items against loops over users, items and their neighbours."""

from math import sqrt

import numpy as np
import pytest
import torch

from braidrec.evaluation.evaluator import Evaluator
from braidrec.evaluation.full_ranking import rank
from braidrec.evaluation.held_out import UserItems
from braidrec.evaluation.neighbour_ranker import ItemNeighbourRanker
from braidrec.evaluation.ranker import Ranker
from braidrec.graph.build import build_interactions
from braidrec.graph.co_interaction import co_interaction_neighbours
from braidrec.graph.knn import Neighbours, content_neighbours

NUM_USERS, NUM_ITEMS = 30, 25
RNG = np.random.default_rng(0)
PAIRS = sorted({(int(u), int(i)) for u, i in zip(RNG.integers(0, 28, 220), RNG.integers(0, 24, 220), strict=True)})
"""Users 28 and 29 have no item, and item 24 no user."""
USERS, ITEMS = np.array(PAIRS).T
HISTORIES = UserItems.from_edges(USERS, ITEMS, num_users=NUM_USERS, num_items=NUM_ITEMS)
OF_USER = [{item for user, item in PAIRS if user == which} for which in range(NUM_USERS)]
OF_ITEM = [{user for user, item in PAIRS if item == which} for which in range(NUM_ITEMS)]


def cosine(one: int, other: int) -> float:
    common = len(OF_ITEM[one] & OF_ITEM[other])
    return common / sqrt(len(OF_ITEM[one]) * len(OF_ITEM[other])) if common else 0.0


def by_loops(k: int) -> np.ndarray:
    scores = np.zeros((NUM_USERS, NUM_ITEMS))
    for item in range(NUM_ITEMS):
        others = [(-cosine(item, other), other) for other in range(NUM_ITEMS) if other != item and cosine(item, other)]
        for negative, other in sorted(others)[:k]:
            for user in range(NUM_USERS):
                scores[user, item] -= negative if other in OF_USER[user] else 0.0
    return scores


def co_interacted(k: int) -> Neighbours:
    return co_interaction_neighbours(build_interactions(USERS, ITEMS, NUM_USERS, NUM_ITEMS), NUM_USERS, k)


@pytest.mark.parametrize("k", [1, 4, 24])
def test_scores(k: int) -> None:
    ranker: Ranker = ItemNeighbourRanker(HISTORIES, co_interacted(k))
    assert (ranker.num_users, ranker.num_items) == (NUM_USERS, NUM_ITEMS)
    scores = ranker.score(torch.arange(NUM_USERS))
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores, by_loops(k), rtol=0, atol=1e-6)
    assert not scores[28:].any() and not scores[:, 24].any()


def test_the_first_k_of_more() -> None:
    more = co_interacted(20)
    users = torch.tensor([3, 0, 17])
    np.testing.assert_array_equal(
        ItemNeighbourRanker(HISTORIES, more, k=4).score(users),
        ItemNeighbourRanker(HISTORIES, co_interacted(4)).score(users),
    )
    assert not torch.equal(
        ItemNeighbourRanker(HISTORIES, more, k=4).score(users), ItemNeighbourRanker(HISTORIES, more).score(users)
    )


def test_a_score_does_not_depend_on_the_tile() -> None:
    ranker = ItemNeighbourRanker(HISTORIES, co_interacted(5))
    whole = ranker.score(torch.arange(NUM_USERS))
    for user in range(NUM_USERS):
        assert torch.equal(ranker.score(torch.tensor([user]))[0], whole[user])


def test_the_ranking_of_a_split() -> None:
    """The evaluator takes it like a trained model: recall by a loop over the sorted scores."""
    ranker = ItemNeighbourRanker(HISTORIES, co_interacted(6))
    held_pairs = [(user, (user * 7 + 3) % NUM_ITEMS) for user in range(NUM_USERS)]
    held_pairs = [(user, item) for user, item in held_pairs if item not in OF_USER[user]]
    held = UserItems.from_edges(*np.array(held_pairs).T, num_users=NUM_USERS, num_items=NUM_ITEMS)
    evaluator = Evaluator(
        held_out=held,
        mask=HISTORIES,
        train_item_degree=np.array([len(users) for users in OF_ITEM]),
        train_user_degree=np.array([len(items) for items in OF_USER]),
        at=(5,),
    )
    found = evaluator.result(evaluator.run(ranker)).metrics["recall@5"]
    hits = []
    for user, item in held_pairs:
        row = ranker.score(torch.tensor([user]))[0].numpy()
        free = [other for other in range(NUM_ITEMS) if other not in OF_USER[user]]
        hits.append(item in sorted(free, key=lambda other: (-row[other], other))[:5])
    assert found == pytest.approx(sum(hits) / len(hits))
    assert 0 < sum(hits) < len(hits)


def test_content_finds_items_that_nobody_has() -> None:
    features = np.zeros((NUM_ITEMS, 3), dtype=np.float32)
    features[:, 0] = 1.0
    features[:, 1] = np.arange(NUM_ITEMS) * 0.01
    features[[0, 24], 2] = 100.0  # item 24 looks like item 0
    near = content_neighbours(features, np.ones(NUM_ITEMS, dtype=bool), 1, device=torch.device("cpu"))
    user = min(OF_ITEM[0])
    best = rank(ItemNeighbourRanker(HISTORIES, near), np.array([user]), mask=HISTORIES, k_max=3)
    assert 24 in best.items[0]
    assert float(ItemNeighbourRanker(HISTORIES, near).score(torch.tensor([user]))[0, 24]) > 0.99


@pytest.mark.parametrize(
    ("k", "items", "message"),
    [(0, NUM_ITEMS, "k=0 must be from 1 to 3"), (4, NUM_ITEMS, "k=4 must be"), (2, 7, "for 7 items, the histories")],
)
def test_what_cannot_be(k: int, items: int, message: str) -> None:
    near = Neighbours(np.full((items, 3), -1, dtype=np.int32), np.zeros((items, 3), dtype=np.float32))
    with pytest.raises(ValueError, match=message):
        ItemNeighbourRanker(HISTORIES, near, k)
