"""Every metric against a naive loop, scikit-learn and a table computed by hand."""

import math

import numpy as np
import pytest
import torch
from evaluation_oracles import (
    MatrixRanker,
    Problem,
    exposure_values,
    random_problem,
    to_user_items,
    user_auc,
    user_values,
)
from sklearn.metrics import (
    average_precision_score,
    mean_absolute_error,
    mean_squared_error,
    ndcg_score,
    roc_auc_score,
)

from braidrec.evaluation.evaluator import Evaluator
from braidrec.evaluation.metrics import METRICS, build_metrics, higher_is_better, metric_names
from braidrec.evaluation.ranker import VectorRanker

AT = (1, 5, 20, 200)


def evaluate(problem, **options):
    evaluator = Evaluator(
        held_out=to_user_items(problem.held_out, problem.num_items),
        mask=to_user_items(problem.mask, problem.num_items),
        train_item_degree=problem.train_item_degree,
        train_user_degree=problem.train_user_degree,
        **{"at": AT, "per_user": True} | options,
    )
    state = evaluator.run(MatrixRanker(problem.scores))
    return evaluator.result(state), evaluator.per_user(state).to_pydict()


@pytest.mark.parametrize("distinct", [None, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_metric_equals_its_naive_loop(seed, distinct):
    problem = random_problem(seed, distinct=distinct)
    result, per_user = evaluate(problem, auc=True)
    wanted = {key: [] for key in per_user if "@" in key}
    for k in AT:
        for user in problem.evaluated:
            for name, value in user_values(problem, user, k).items():
                wanted[f"{name}@{k}"].append(value)
        for name, value in exposure_values(problem, k).items():
            assert result.metrics[f"{name}@{k}"] == pytest.approx(value, abs=1e-12)
    wanted["auc"] = [user_auc(problem, user) for user in problem.evaluated]
    assert per_user["user"] == problem.evaluated
    assert per_user["num_held_out"] == [len(problem.held_out[user]) for user in problem.evaluated]
    for key, values in wanted.items():
        assert per_user[key] == pytest.approx(values, abs=1e-12, nan_ok=True), key
        assert result.metrics[key] == pytest.approx(np.nanmean(values), abs=1e-12), key
    assert set(result.metrics) == set(metric_names(AT, auc=True))
    assert result.num_users == len(problem.evaluated)
    assert result.num_held_out == sum(per_user["num_held_out"])
    assert result.num_users_without_train == sum(not problem.mask[user] for user in problem.evaluated)


def test_scikit_learn_agrees():
    problem = random_problem(3)
    _, per_user = evaluate(problem, auc=True)
    for index, user in enumerate(problem.evaluated):
        candidates = [item for item in range(problem.num_items) if item not in problem.mask[user]]
        relevant = np.array([item in problem.held_out[user] for item in candidates])
        scores = problem.scores[user, candidates]
        assert per_user["auc"][index] == pytest.approx(roc_auc_score(relevant, scores), abs=1e-12)
        assert per_user["map@200"][index] == pytest.approx(average_precision_score(relevant, scores), abs=1e-12)
        for k in (5, 20):
            assert per_user[f"ndcg@{k}"][index] == pytest.approx(ndcg_score([relevant], [scores], k=k), abs=1e-12)


def test_a_table_computed_by_hand():
    problem = Problem(
        scores=np.array([[6, 5, 4, 3, 2, 1], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 9]], dtype=np.float32),
        mask=[{0}, set(), {5}],
        held_out=[{2, 5}, {1, 3}, {0}],
        train_item_degree=np.array([8, 4, 2, 2, 0, 0]),
    )
    result, per_user = evaluate(problem, at=(3,), auc=True)
    half_ndcg = (1 / math.log2(3)) / (1 + 1 / math.log2(3))
    assert per_user["recall@3"] == [0.5, 0.5, 1]
    assert per_user["precision@3"] == [1 / 3, 1 / 3, 1 / 3]
    assert per_user["ndcg@3"] == pytest.approx([half_ndcg, half_ndcg, 1])
    assert per_user["map@3"] == [0.25, 0.25, 1]
    assert per_user["mrr@3"] == [0.5, 0.5, 1]
    assert per_user["hit_rate@3"] == [1, 1, 1]
    assert per_user["auc"] == pytest.approx([2 / 6, 0.5, 0.5])
    # The lists are 1 2 3, 0 1 2 and 0 1 2: items are shown 2, 3, 3, 1, 0, 0 times.
    assert result.metrics["coverage@3"] == pytest.approx(4 / 6)
    assert result.metrics["gini@3"] == pytest.approx(25 / 54)
    assert result.metrics["novelty@3"] == pytest.approx((2 * 1 + 3 * 2 + 3 * 3 + 1 * 3) / 9)


def test_auc_is_undefined_without_negatives_and_such_users_do_not_count():
    problem = Problem(
        scores=np.array([[1, 2, 3], [1, 2, 3]], dtype=np.float32),
        mask=[{0}, set()],
        held_out=[{1, 2}, {2}],
        train_item_degree=np.array([1, 0, 0]),
    )
    result, per_user = evaluate(problem, at=(1,), auc=True)
    assert math.isnan(per_user["auc"][0])
    assert result.metrics["auc"] == 1.0


def test_auc_with_items_that_the_ranker_excludes():
    """−inf is a score like any other for AUC: it ties with −inf and loses to the rest, and masked items never count."""
    problem = random_problem(5, distinct=5)
    problem.scores[problem.scores == 0] = -np.inf
    _, per_user = evaluate(problem, at=(1,), auc=True)
    wanted = [user_auc(problem, user) for user in problem.evaluated]
    assert per_user["auc"] == pytest.approx(wanted, abs=1e-12, nan_ok=True)


def test_rating_errors_agree_with_scikit_learn():
    random = np.random.default_rng(0)
    problem = random_problem(7)
    users, items = random.normal(size=(60, 8)).astype(np.float32), random.normal(size=(130, 8)).astype(np.float32)
    pairs = [(user, item) for user in range(60) for item in sorted(problem.held_out[user])]
    ratings = random.uniform(1, 5, size=len(pairs)).astype(np.float32)
    evaluator = Evaluator(
        held_out=to_user_items(problem.held_out, 130, values=ratings),
        mask=to_user_items(problem.mask, 130),
        train_item_degree=problem.train_item_degree,
        train_user_degree=problem.train_user_degree,
        rating=True,
    )
    ranker = VectorRanker(torch.from_numpy(users), torch.from_numpy(items), offset=3.25)
    metrics = evaluator.result(evaluator.run(ranker)).metrics
    predicted = [float(users[user] @ items[item]) + 3.25 for user, item in pairs]
    assert metrics["rmse"] == pytest.approx(math.sqrt(mean_squared_error(ratings, predicted)), rel=1e-6)
    assert metrics["mae"] == pytest.approx(mean_absolute_error(ratings, predicted), rel=1e-6)


def test_names_can_be_checked_before_work_starts():
    assert metric_names((10,))[:2] == ["recall@10", "ndcg@10"]
    assert metric_names((10, 20), auc=True, rating=True)[-3:] == ["auc", "rmse", "mae"]
    assert "auc" not in metric_names((10,))
    assert {name for name in METRICS if not higher_is_better(name)} == {"gini", "rmse", "mae"}
    assert higher_is_better("recall@20")
    with pytest.raises(ValueError, match=r"unknown metric 'recal@20'.*recall"):
        higher_is_better("recal@20")


@pytest.mark.parametrize("at", [(), (0, 5), (5, 5)])
def test_bad_cut_offs_are_refused(at):
    with pytest.raises(ValueError, match="cut-off"):
        build_metrics(at)


@pytest.mark.parametrize("names", [("recall", "recal"), ("recall", "recall")])
def test_unknown_and_repeated_metrics_are_refused(names):
    with pytest.raises(ValueError, match="recal"):
        build_metrics((5,), names=names)
