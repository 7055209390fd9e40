import numpy as np
import pytest
import torch
from evaluation_oracles import MatrixRanker, random_problem, to_user_items, user_auc

from braidrec.evaluation.full_ranking import rank
from braidrec.evaluation.held_out import UserItems
from braidrec.evaluation.ranker import PopularityRanker, VectorRanker
from braidrec.evaluation.score_tiles import BLOCK_ITEMS, BLOCK_USERS, score_tiles


def vector_ranker(num_users, num_items, dim=64, seed=0, offset=0.0):
    generator = torch.Generator().manual_seed(seed)
    users = torch.randn(num_users, dim, generator=generator)
    return VectorRanker(users, torch.randn(num_items, dim, generator=generator), offset)


def random_pairs(num_users, num_items, per_user, seed):
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), per_user)
    items = random.integers(0, num_items, size=len(users))
    return UserItems.from_edges(users, items, num_users=num_users, num_items=num_items)


ONE_PAIR = UserItems.from_edges(np.array([1]), np.array([2]), num_users=3, num_items=5)


@pytest.mark.parametrize("distinct", [None, 3])
def test_lists_and_scores_equal_those_of_the_naive_loop(distinct):
    problem = random_problem(0, distinct=distinct)
    mask = to_user_items(problem.mask, problem.num_items)
    ranking = rank(MatrixRanker(problem.scores), np.arange(60), mask=mask, k_max=90)
    for user in range(60):
        wanted = problem.ranked(user, 90)
        assert ranking.items[user].tolist() == wanted + [-1] * (90 - len(wanted))
        assert ranking.scores[user, : len(wanted)].tolist() == problem.scores[user, wanted].tolist()
        assert not set(ranking.items[user].tolist()) & problem.mask[user]
    assert (ranking.scores[ranking.items < 0] == -np.inf).all()


def test_nothing_depends_on_tiles_or_on_who_shares_them():
    """Real-valued scores, so that a matrix product of another shape would differ in the last bits."""
    num_users, num_items = 700, 2 * BLOCK_ITEMS + 1234
    ranker = vector_ranker(num_users, num_items)
    mask = random_pairs(num_users, num_items, 30, seed=1)
    held_out = random_pairs(num_users, num_items, 6, seed=2).without(mask)
    options = {"mask": mask, "held_out": held_out, "k_max": 25, "auc": True}
    whole = rank(ranker, np.arange(num_users), tile_mb=64, **options)
    order = np.random.default_rng(3).permutation(num_users)
    for users, tile_mb in [(np.arange(num_users), 4), (np.arange(num_users), 9), (order, 4), (order[:301], 64)]:
        part = rank(ranker, users, tile_mb=tile_mb, **options)
        np.testing.assert_array_equal(part.users, users)
        np.testing.assert_array_equal(part.items, whole.items[users])
        np.testing.assert_array_equal(part.scores, whole.scores[users])
        np.testing.assert_array_equal(part.auc, whole.auc[users])
        rows, items = held_out.rows(users)
        np.testing.assert_array_equal(part.held_out_scores, scores_of(whole, held_out, users[rows], items))


def scores_of(ranking, pairs, users, items):
    rows, all_items = pairs.rows(ranking.users)
    score = dict(zip(zip(ranking.users[rows], all_items, strict=True), ranking.held_out_scores, strict=True))
    return [score[pair] for pair in zip(users, items, strict=True)]


def test_vectors_and_whole_rows_agree():
    """Whole-number vectors: both ways compute the same scores exactly, with many ties."""
    random = np.random.default_rng(4)
    users = torch.from_numpy(random.integers(-2, 3, size=(40, 5)).astype(np.float32))
    items = torch.from_numpy(random.integers(-2, 3, size=(BLOCK_ITEMS + 77, 5)).astype(np.float32))
    mask = random_pairs(40, len(items), 9, seed=5)
    held_out = random_pairs(40, len(items), 4, seed=6).without(mask)
    options = {"mask": mask, "held_out": held_out, "k_max": 30, "auc": True, "tile_mb": 4}
    by_vectors = rank(VectorRanker(users, items, offset=0.5), np.arange(40), **options)
    by_rows = rank(MatrixRanker(users @ items.t() + 0.5), np.arange(40), **options)
    for name in ("items", "scores", "held_out_scores", "auc"):
        np.testing.assert_array_equal(getattr(by_vectors, name), getattr(by_rows, name), err_msg=name)


def test_auc_over_several_item_tiles_equals_all_pairs():
    problem = random_problem(1, num_users=20, num_items=BLOCK_ITEMS + 50)
    random = np.random.default_rng(7)
    users = random.integers(-3, 4, size=(20, 4)).astype(np.float32)
    items = random.integers(-3, 4, size=(problem.num_items, 4)).astype(np.float32)
    problem.scores = users @ items.T
    ranking = rank(
        VectorRanker(torch.from_numpy(users), torch.from_numpy(items)),
        np.array(problem.evaluated),
        mask=to_user_items(problem.mask, problem.num_items),
        held_out=to_user_items(problem.held_out, problem.num_items),
        auc=True,
        k_max=1,
        tile_mb=4,
    )
    assert ranking.auc == pytest.approx([user_auc(problem, user) for user in problem.evaluated], abs=1e-12)


@pytest.mark.parametrize("by_vectors", [True, False])
def test_candidate_lists(by_vectors):
    random = np.random.default_rng(8)
    scores = random.integers(0, 9, size=(30, 50)).astype(np.float32)
    eye = torch.eye(50)
    ranker = VectorRanker(torch.from_numpy(scores), eye) if by_vectors else MatrixRanker(scores)
    mask = random_pairs(30, 50, 8, seed=9)
    candidates = random.permutation(50)[:17]
    ranking = rank(ranker, np.arange(30), mask=mask, k_max=20, candidates=candidates)
    for user in range(30):
        seen = mask.rows(np.array([user]))[1]
        wanted = sorted(set(candidates.tolist()) - set(seen.tolist()), key=lambda item: (-scores[user, item], item))
        assert ranking.items[user].tolist() == wanted + [-1] * (20 - len(wanted))


@pytest.mark.parametrize(("num_items", "tile_mb"), [(40_981, 64), (40_981, 256), (1_000_000, 64), (100, 1), (9000, 4)])
def test_tiles_keep_to_their_memory_and_cover_all_items(num_items, tile_mb):
    ranker = VectorRanker(torch.zeros(10_000, 1), torch.zeros(num_items, 1))
    tiles = score_tiles(ranker, None, num_users=10_000, tile_mb=tile_mb)
    widest = max(stop - start for start, stop in tiles.ranges)
    assert tiles.rows * widest * 4 <= max(tile_mb << 20, 4 * BLOCK_USERS * min(BLOCK_ITEMS, num_items))
    columns = [column for start, stop in tiles.ranges for column in range(start, stop)]
    assert columns == list(range(num_items))


def test_an_empty_mask_and_k_beyond_the_catalogue():
    ranker = vector_ranker(3, 5, dim=2)
    ranking = rank(ranker, np.array([2, 0]), mask=UserItems.empty(num_users=3, num_items=5), k_max=8)
    assert np.sort(ranking.items, axis=1).tolist() == [[-1, -1, -1, 0, 1, 2, 3, 4]] * 2
    assert (np.diff(ranking.scores[:, :5], axis=1) <= 0).all()


def test_no_users():
    ranking = rank(vector_ranker(3, 5), np.empty(0, int), mask=UserItems.empty(num_users=3, num_items=5), k_max=2)
    assert ranking.items.shape == (0, 2)


def test_popularity_ranks_by_degree_then_by_index():
    mask = UserItems.from_edges(np.array([1]), np.array([3]), num_users=2, num_items=5)
    ranking = rank(PopularityRanker(np.array([2, 7, 2, 9, 0]), num_users=2), np.arange(2), mask=mask, k_max=4)
    assert ranking.items.tolist() == [[3, 1, 0, 2], [1, 0, 2, 4]]


def test_the_offset_changes_scores_but_no_order():
    plain, shifted = vector_ranker(50, 300), vector_ranker(50, 300, offset=1e6)
    mask = random_pairs(50, 300, 5, seed=0)
    lists = [rank(ranker, np.arange(50), mask=mask, k_max=50) for ranker in (plain, shifted)]
    np.testing.assert_array_equal(lists[0].items, lists[1].items)
    np.testing.assert_array_equal(lists[1].scores, lists[0].scores + np.float32(1e6))
    assert shifted.score(torch.tensor([3])).min() > 9e5


def test_a_ranker_may_keep_what_it_returns():
    problem = random_problem(2)
    ranker = MatrixRanker(problem.scores)
    ranker.score = lambda users: ranker.scores
    before = ranker.scores.clone()
    mask = to_user_items(problem.mask, problem.num_items)
    rank(ranker, np.arange(60), mask=mask, k_max=3)
    assert torch.equal(ranker.scores, before)


def test_progress_is_told_after_each_tile():
    told = []
    mask = UserItems.empty(num_users=600, num_items=9000)
    rank(
        vector_ranker(600, 9000, dim=2),
        np.arange(600),
        mask=mask,
        k_max=1,
        tile_mb=9,
        progress=lambda *p: told.append(p),
    )
    assert told == [(256, 600), (512, 600), (600, 600)]


def test_nan_is_refused_and_names_a_user():
    ranker = vector_ranker(600, 40)
    ranker._user_vectors[431] = torch.nan
    with pytest.raises(ValueError, match="user 431 has a score that is NaN"):
        rank(ranker, np.arange(600), mask=UserItems.empty(num_users=600, num_items=40), k_max=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"users": np.array([0, 3])}, "knows 0 … 2"),
        ({"users": np.array([0, 0])}, "more than once"),
        ({"mask": UserItems.empty(num_users=3, num_items=6)}, "mask has 3 users and 6 items"),
        ({"auc": True}, "needs held_out"),
        ({"auc": True, "mask": ONE_PAIR, "held_out": ONE_PAIR}, "share pairs"),
        ({"candidates": np.array([5])}, "candidates 5 … 5"),
        ({"candidates": np.array([], dtype=int)}, "candidates is empty"),
        ({"candidates": np.array([1]), "held_out": UserItems.empty(num_users=3, num_items=5)}, "exclude each other"),
    ],
)
def test_bad_input_is_refused(options, message):
    defaults = {"users": np.arange(3), "mask": UserItems.empty(num_users=3, num_items=5), "k_max": 2}
    with pytest.raises(ValueError, match=message):
        rank(vector_ranker(3, 5), **defaults | options)


def test_a_ranker_that_breaks_its_contract_is_refused():
    ranker = MatrixRanker(np.zeros((3, 5)))
    with pytest.raises(ValueError, match=r"MatrixRanker.score returned torch.float64 \[3, 5\]"):
        rank(ranker, np.arange(3), mask=UserItems.empty(num_users=3, num_items=5), k_max=2)


def test_vectors_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="same dim"):
        VectorRanker(torch.zeros(2, 3), torch.zeros(4, 5))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gives_the_lists_of_the_processor():
    """Whole-number vectors, so that both compute the same scores."""
    random = np.random.default_rng(11)
    users = torch.from_numpy(random.integers(-2, 3, size=(300, 8)).astype(np.float32))
    items = torch.from_numpy(random.integers(-2, 3, size=(9000, 8)).astype(np.float32))
    mask = random_pairs(300, 9000, 9, seed=5)
    options = {"mask": mask, "held_out": random_pairs(300, 9000, 4, seed=6).without(mask), "k_max": 30, "auc": True}
    here = rank(VectorRanker(users, items), np.arange(300), **options)
    there = rank(VectorRanker(users.cuda(), items.cuda()), np.arange(300), **options)
    for name in ("items", "scores", "held_out_scores", "auc"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name), err_msg=name)
