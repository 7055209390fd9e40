"""Approximate ranking: against exact lists, on planted clusters, with what is masked and what may be recommended."""

import sys

import numpy as np
import pytest
import torch

from braidrec.evaluation.ann import AnnIndex, AnnSearch
from braidrec.evaluation.evaluator import Evaluator
from braidrec.evaluation.full_ranking import rank
from braidrec.evaluation.held_out import UserItems
from braidrec.evaluation.ranker import VectorRanker

NUM_USERS, NUM_ITEMS, NUM_CLUSTERS, DIM, K = 300, 4_000, 20, 16, 20
USERS = np.arange(NUM_USERS)

faiss = pytest.importorskip("faiss", reason="the extra braidrec[ann] is not installed")


def clustered(offset: float = 0.0) -> VectorRanker:
    """Items around twenty centres, users each near one of them."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(NUM_CLUSTERS, DIM, generator=generator), dim=1)
    items = centres[torch.arange(NUM_ITEMS) % NUM_CLUSTERS] + 0.1 * torch.randn(NUM_ITEMS, DIM, generator=generator)
    users = centres[torch.arange(NUM_USERS) % NUM_CLUSTERS] + 0.1 * torch.randn(NUM_USERS, DIM, generator=generator)
    return VectorRanker(users, items, offset)


def pairs(per_user: int, seed: int, ranker: VectorRanker | None = None) -> UserItems:
    """Random items of every user, or his best ones."""
    if ranker is not None:
        nothing = UserItems.empty(num_users=NUM_USERS, num_items=NUM_ITEMS)
        items = rank(ranker, USERS, mask=nothing, k_max=per_user).items.reshape(-1)
    else:
        items = np.random.default_rng(seed).integers(0, NUM_ITEMS, NUM_USERS * per_user)
    return UserItems.from_edges(np.repeat(USERS, per_user), items, num_users=NUM_USERS, num_items=NUM_ITEMS)


def ranked(search: AnnSearch, users: np.ndarray, mask: UserItems, k: int = K) -> tuple[np.ndarray, np.ndarray]:
    tiles = list(search.rank_tiles(users, mask=mask, k_max=k))
    assert np.concatenate([tile.users for tile in tiles]).tolist() == users.tolist()
    return np.concatenate([tile.items for tile in tiles]), np.concatenate([tile.scores for tile in tiles])


def share_found(found: np.ndarray, exact: np.ndarray) -> float:
    """By sets, list after list."""
    shares = []
    for mine, best in zip(found.tolist(), exact.tolist(), strict=True):
        wanted = set(best) - {-1}
        if wanted:
            shares.append(len(wanted & set(mine)) / len(wanted))
    return float(np.mean(shares))


def test_every_cell_searched_gives_the_exact_lists() -> None:
    ranker, mask = clustered(offset=2.5), pairs(40, seed=1)
    search = AnnSearch(ranker, n_list=13, n_probe=13)
    items, scores = ranked(search, USERS, mask)
    exact = rank(ranker, USERS, mask=mask, k_max=K)
    assert share_found(items, exact.items) == 1.0
    np.testing.assert_allclose(scores, exact.scores, rtol=1e-5)
    assert search.report is not None
    assert (search.report.recall, search.report.recall_users, search.report.short_users) == (1.0, NUM_USERS, 0)


def test_clusters_are_found_in_a_few_cells_and_recall_is_what_a_loop_counts() -> None:
    ranker, mask = clustered(), pairs(40, seed=1)
    exact = rank(ranker, USERS, mask=mask, k_max=K).items
    recalls = []
    for n_probe in (1, 4):
        search = AnnSearch(ranker, n_list=40, n_probe=n_probe, recall_users=NUM_USERS)
        items, _ = ranked(search, USERS, mask)
        assert search.report is not None
        assert search.report.recall == pytest.approx(share_found(items, exact))
        recalls.append(search.report.recall)
    assert recalls[0] < recalls[1]
    assert recalls[0] < 1.0
    assert recalls[1] > 0.95


def test_recall_on_a_sample_is_that_of_the_sample() -> None:
    ranker, mask = clustered(), pairs(10, seed=1)
    search = AnnSearch(ranker, n_list=40, n_probe=1, recall_users=7)
    items, _ = ranked(search, USERS, mask)
    sample = np.linspace(0, NUM_USERS - 1, 7).astype(int)
    exact = rank(ranker, sample, mask=mask, k_max=K).items
    assert search.report is not None and search.report.recall_users == 7
    assert search.report.recall == pytest.approx(share_found(items[sample], exact))
    assert f"recall@{K} {search.report.recall:.4f} of the exact lists, over 7 users" in search.report.text


def test_more_is_fetched_where_masked_items_took_the_places() -> None:
    """The 150 best of every user are masked: seven times what is asked for."""
    ranker = clustered()
    mask = pairs(150, seed=0, ranker=ranker)
    items, _ = ranked(AnnSearch(ranker, n_list=13, n_probe=13), USERS, mask)
    assert (items >= 0).all()
    assert not mask.contains(USERS, items).any()
    assert share_found(items, rank(ranker, USERS, mask=mask, k_max=K).items) == 1.0


def test_users_with_too_few_in_their_cells_are_counted() -> None:
    ranker, nothing = clustered(), UserItems.empty(num_users=NUM_USERS, num_items=NUM_ITEMS)
    search = AnnSearch(ranker, n_list=40, n_probe=1)
    items, _ = ranked(search, USERS, nothing, k=150)
    missing = int((items < 0).any(axis=1).sum())
    assert missing > 0
    assert search.report is not None and search.report.short_users == missing
    assert f"{missing} users got fewer than 150" in search.report.text


def test_candidates_alone_are_recommended() -> None:
    ranker, mask = clustered(), pairs(40, seed=1)
    candidates = np.random.default_rng(2).choice(NUM_ITEMS, 25, replace=False)
    search = AnnSearch(ranker, candidates, n_list=2, n_probe=2)
    items, scores = ranked(search, USERS, mask, k=30)
    exact = rank(ranker, USERS, mask=mask, k_max=30, candidates=candidates)
    np.testing.assert_array_equal(items < 0, exact.items < 0)
    assert share_found(items, exact.items) == 1.0
    assert (scores[items < 0] == -np.inf).all()
    assert search.report is not None and search.report.short_users == 0


def test_metrics_are_those_of_the_lists() -> None:
    ranker, mask = clustered(), pairs(5, seed=1)
    held_out = pairs(3, seed=3)
    evaluator = Evaluator(
        held_out=held_out,
        mask=mask,
        train_item_degree=np.bincount(mask.items, minlength=NUM_ITEMS),
        train_user_degree=mask.counts,
    )
    exact = evaluator.result(evaluator.run(ranker)).metrics
    found = evaluator.result(evaluator.run(ranker, search=AnnSearch(ranker, n_list=13, n_probe=13))).metrics
    assert found == pytest.approx(exact)
    evaluator = Evaluator(
        held_out=held_out, mask=mask, train_item_degree=np.ones(NUM_ITEMS), train_user_degree=mask.counts, auc=True
    )
    with pytest.raises(ValueError, match=r"AUC .* need the scores of all items: rank exactly"):
        evaluator.run(ranker, search=AnnSearch(ranker, n_list=13, n_probe=13))


@pytest.mark.parametrize(("n_list", "n_probe"), [(NUM_ITEMS + 1, 1), (10, 11)])
def test_cells_that_cannot_be_are_refused(n_list: int, n_probe: int) -> None:
    with pytest.raises(ValueError, match=rf"n_list={n_list}, n_probe={n_probe}: wanted n_probe ≤ n_list ≤ 4000"):
        AnnIndex(clustered(), n_list=n_list, n_probe=n_probe)


def test_vectors_that_are_not_finite_are_refused() -> None:
    items = torch.ones(50, 2)
    items[7, 1] = torch.nan
    with pytest.raises(ValueError, match="an item's vector is not finite"):
        AnnIndex(VectorRanker(torch.ones(3, 2), items))


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'braidrec\[ann\]', or set index=exact"):
        AnnIndex(clustered())
