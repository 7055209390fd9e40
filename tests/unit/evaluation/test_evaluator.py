import numpy as np
import pytest
import torch
from evaluation_oracles import MatrixRanker, random_problem, to_user_items

from braidrec.evaluation.evaluator import Evaluator
from braidrec.evaluation.held_out import UserItems
from braidrec.evaluation.metrics import METRICS, build_metrics, metric_names
from braidrec.evaluation.ranker import VectorRanker
from braidrec.evaluation.slices import item_popularity, item_warmth, user_activity
from braidrec.evaluation.state import EvaluationState

NUM_USERS = 90


def evaluator_for(problem, **options):
    ratings = np.linspace(1, 5, sum(map(len, problem.held_out)), dtype=np.float32)
    return Evaluator(
        held_out=to_user_items(problem.held_out, problem.num_items, values=ratings),
        mask=to_user_items(problem.mask, problem.num_items),
        train_item_degree=problem.train_item_degree,
        train_user_degree=problem.train_user_degree,
        **options,
    )


@pytest.fixture(scope="module")
def everything():
    """An evaluator with all that it can do, and a ranker whose scores need all their bits."""
    problem = random_problem(0, num_users=NUM_USERS)
    generator = torch.Generator().manual_seed(1)
    ranker = VectorRanker(torch.randn(NUM_USERS, 24, generator=generator), torch.randn(130, 24, generator=generator))
    slices = (
        user_activity(problem.train_user_degree),
        item_popularity(problem.train_item_degree),
        item_warmth(problem.train_item_degree),
    )
    return evaluator_for(problem, auc=True, rating=True, slices=slices, per_user=True), ranker


@pytest.mark.parametrize("num_shards", [1, 2, 7, 1000])
def test_any_number_of_shards_gives_the_same_result_to_the_last_bit(everything, num_shards):
    evaluator, ranker = everything
    whole = evaluator.run(ranker)
    users = np.random.default_rng(2).permutation(evaluator.users)
    shards = [users[shard::num_shards] for shard in range(min(num_shards, len(users)))]
    states = [evaluator.run(ranker, shard) for shard in shards]
    merged = EvaluationState.merge(states)
    assert evaluator.result(merged) == evaluator.result(whole)
    assert evaluator.per_user(merged).equals(evaluator.per_user(whole))


def test_arrays_can_be_exchanged_between_processes(everything):
    """An all-reduce of "sums", or a gather of both arrays and a merge, amounts to one process."""
    evaluator, ranker = everything
    whole = evaluator.run(ranker)
    states = [evaluator.run(ranker, evaluator.users[shard::3]) for shard in range(3)]
    arrays = [state.to_arrays() for state in states]
    assert all(array.dtype == np.float64 for one in arrays for array in one.values())
    reduced = {"sums": arrays[2]["sums"] + arrays[0]["sums"] + arrays[1]["sums"], "rows": arrays[0]["rows"]}
    assert evaluator.result(states[1].from_arrays(reduced)) == evaluator.result(whole)
    gathered = EvaluationState.merge([states[0].from_arrays(one) for one in arrays])
    assert evaluator.result(gathered) == evaluator.result(whole)
    assert evaluator.per_user(gathered).equals(evaluator.per_user(whole))


def test_arrays_of_another_evaluator_are_refused(everything):
    evaluator, ranker = everything
    other = evaluator_for(random_problem(0, num_users=NUM_USERS), at=(3,))
    with pytest.raises(ValueError, match="same settings"):
        other.run(ranker).from_arrays(evaluator.run(ranker).to_arrays())


def test_a_worker_without_users_adds_nothing(everything):
    evaluator, ranker = everything
    whole = evaluator.run(ranker)
    idle = evaluator.run(ranker, evaluator.users[:0])
    assert evaluator.result(EvaluationState.merge([idle, whole])) == evaluator.result(whole)
    assert np.isnan(evaluator.result(idle).metrics["recall@20"])


def test_every_registered_metric_is_in_the_result(everything):
    evaluator, ranker = everything
    metrics = evaluator.result(evaluator.run(ranker)).metrics
    assert list(metrics) == metric_names((10, 20), auc=True, rating=True)
    assert {key.partition("@")[0] for key in metrics} == set(METRICS)
    assert all(metric.name == name for name, metric in METRICS.items())
    assert {type(metric) for metric in build_metrics((1,), auc=True, rating=True)} == set(METRICS.values())


def test_users_without_held_out_items_are_not_evaluated_whoever_asks():
    problem = random_problem(1)
    evaluator = evaluator_for(problem, per_user=True)
    ranker = MatrixRanker(problem.scores)
    assert evaluator.users.tolist() == problem.evaluated
    state = evaluator.run(ranker, np.arange(problem.num_users))
    assert evaluator.per_user(state)["user"].to_pylist() == problem.evaluated
    assert evaluator.result(state).num_users == len(problem.evaluated)


def test_held_out_items_that_are_masked_are_left_out_and_counted():
    problem = random_problem(2)
    clean = evaluator_for(problem)
    user = problem.evaluated[3]
    assert problem.mask[user]
    problem.held_out[user] = problem.held_out[user] | {min(problem.mask[user])}
    evaluator = evaluator_for(problem)
    ranker = MatrixRanker(problem.scores)
    result, wanted = evaluator.result(evaluator.run(ranker)), clean.result(clean.run(ranker))
    assert result.num_held_out_masked == 1
    assert result.metrics == wanted.metrics


def test_fewer_metrics_and_other_cut_offs():
    problem = random_problem(3)
    evaluator = evaluator_for(problem, metrics=("ndcg", "recall"), at=(7, 3))
    metrics = evaluator.result(evaluator.run(MatrixRanker(problem.scores))).metrics
    assert list(metrics) == ["ndcg@7", "ndcg@3", "recall@7", "recall@3"]
    assert metrics["recall@3"] <= metrics["recall@7"]


def test_per_user_values_have_a_fixed_schema(everything):
    evaluator, ranker = everything
    table = evaluator.per_user(evaluator.run(ranker))
    assert [str(field.type) for field in table.schema][:3] == ["int32", "int32", "double"]
    assert table.column_names[:3] == ["user", "num_held_out", "recall@10"]
    assert "coverage@10" not in table.column_names


def test_per_user_values_must_be_asked_for():
    problem = random_problem(4)
    evaluator = evaluator_for(problem)
    state = evaluator.run(MatrixRanker(problem.scores))
    assert state.rows.shape[0] == 0
    with pytest.raises(ValueError, match="per_user=True"):
        evaluator.per_user(state)


def test_bad_settings_are_refused():
    problem = random_problem(5)
    held_out = to_user_items(problem.held_out, problem.num_items)
    degrees = {"train_item_degree": problem.train_item_degree, "train_user_degree": problem.train_user_degree}
    mask = to_user_items(problem.mask, problem.num_items)
    with pytest.raises(ValueError, match="ratings of the held-out pairs"):
        Evaluator(held_out=held_out, mask=mask, rating=True, **degrees)
    with pytest.raises(ValueError, match="mask has 60 users and 131 items"):
        Evaluator(held_out=held_out, mask=to_user_items(problem.mask, 131), **degrees)
    with pytest.raises(ValueError, match="has 60 users and 3 items"):
        Evaluator(held_out=held_out, mask=mask, **degrees | {"train_item_degree": np.zeros(3)})
    with pytest.raises(ValueError, match="nothing to evaluate"):
        Evaluator(held_out=UserItems.empty(num_users=60, num_items=130), mask=mask, **degrees)
    with pytest.raises(ValueError, match=r"nothing to evaluate: .* are masked too"):
        Evaluator(held_out=mask, mask=mask, **degrees)


def test_a_prediction_that_is_not_finite_is_refused():
    problem = random_problem(6)
    problem.scores[:] = np.inf
    with pytest.raises(ValueError, match="not finite"):
        evaluator_for(problem, rating=True).run(MatrixRanker(problem.scores))
