import numpy as np
import pytest
from evaluation_oracles import MatrixRanker, random_problem, to_user_items, user_auc, user_values

from braidrec.evaluation.evaluator import Evaluator
from braidrec.evaluation.slices import (
    PairSlice,
    UserSlice,
    item_modalities,
    item_popularity,
    item_warmth,
    user_activity,
)

K = 10


def sliced(problem, *slices, **options):
    evaluator = Evaluator(
        held_out=to_user_items(problem.held_out, problem.num_items),
        mask=to_user_items(problem.mask, problem.num_items),
        train_item_degree=problem.train_item_degree,
        train_user_degree=problem.train_user_degree,
        at=(K,),
        slices=slices,
        **options,
    )
    return evaluator.result(evaluator.run(MatrixRanker(problem.scores))).slices


def test_user_groups_hold_every_user_metric():
    problem = random_problem(0)
    part = UserSlice(
        name="thirds", groups=("a", "b", "nobody"), group_of=lambda users: users % 3 % 2 - (users % 3 == 2)
    )
    groups = sliced(problem, part, auc=True)["thirds"]
    for remainder, group in [(0, "a"), (1, "b")]:
        users = [user for user in problem.evaluated if user % 3 == remainder]
        assert groups[group]["num_users"] == len(users)
        values = [user_values(problem, user, K) for user in users]
        for name in values[0]:
            assert groups[group][f"{name}@{K}"] == pytest.approx(np.mean([value[name] for value in values]))
        assert groups[group]["auc"] == pytest.approx(np.mean([user_auc(problem, user) for user in users]))
    assert groups["nobody"] == {"num_users": 0}


def test_item_groups_hold_the_recall_of_their_own_held_out_items():
    problem = random_problem(1)
    part = PairSlice(
        name="both",
        groups=("even", "odd"),
        group_of=lambda users, items: np.where(items < 100, (users + items) % 2, -1),
    )
    groups = sliced(problem, part)["both"]
    for parity, group in enumerate(("even", "odd")):
        recalls, pairs = [], 0
        for user in problem.evaluated:
            wanted = {i for i in problem.held_out[user] if i < 100 and (user + i) % 2 == parity}
            if wanted:
                recalls.append(len(wanted & set(problem.ranked(user, K))) / len(wanted))
                pairs += len(wanted)
        assert groups[group] == {
            "num_users": len(recalls),
            "num_held_out": pairs,
            f"recall@{K}": pytest.approx(np.mean(recalls)),
        }


def test_one_group_of_everything_equals_the_whole():
    problem = random_problem(2)
    zeros = [
        UserSlice(name="users", groups=("all",), group_of=np.zeros_like),
        PairSlice(name="pairs", groups=("all",), group_of=lambda users, items: np.zeros_like(items)),
    ]
    evaluator = Evaluator(
        held_out=to_user_items(problem.held_out, problem.num_items),
        mask=to_user_items(problem.mask, problem.num_items),
        train_item_degree=problem.train_item_degree,
        train_user_degree=problem.train_user_degree,
        slices=zeros,
    )
    result = evaluator.result(evaluator.run(MatrixRanker(problem.scores)))
    for key, value in result.slices["users"]["all"].items():
        assert value == (result.metrics | {"num_users": result.num_users})[key], key
    assert result.slices["pairs"]["all"]["recall@20"] == result.metrics["recall@20"]


def test_activity_groups_are_quantiles_and_equal_degrees_stay_together():
    degree = np.array([0, 1, 1, 1, 2, 3, 4, 5, 9, 0])
    part = user_activity(degree, num_groups=4)
    assert part.groups == ("0", "1", "2", "3-4", "5-9")
    names = [part.groups[index] for index in part.group_of(np.arange(10))]
    assert names == ["0", "1", "1", "1", "2", "3-4", "3-4", "5-9", "5-9", "0"]
    assert user_activity(np.array([3, 3, 3])).groups == ("3",)
    assert user_activity(np.array([0, 0])).groups == ("0",)


def test_activity_groups_are_about_equally_large():
    degree = np.random.default_rng(0).permutation(1000) + 1
    part = user_activity(degree, num_groups=5)
    assert np.bincount(part.group_of(np.arange(1000))).tolist() == [200] * 5
    assert part.groups[0] == "1-200"


def test_popularity_groups_by_the_share_of_interactions_above():
    #      share of interactions to more popular items: 0, .4, .4, .8, .9, .9, none
    degree = np.array([40, 20, 20, 10, 5, 5, 0])
    part = item_popularity(degree, shares=(0.4, 0.85))
    groups = part.group_of(np.zeros(7, dtype=int), np.arange(7))
    assert [part.groups[g] if g >= 0 else None for g in groups] == [
        "head", "middle", "middle", "middle", "tail", "tail", None,
    ]  # fmt: skip


def test_warm_and_cold_items():
    part = item_warmth(np.array([3, 0, 1, 0]))
    assert [part.groups[g] for g in part.group_of(np.zeros(4, dtype=int), np.arange(4))] == ["warm", "cold"] * 2


def test_ready_made_slices_cover_all_held_out_items():
    problem = random_problem(3)
    assert (problem.train_item_degree == 0).any()
    found = sliced(problem, item_popularity(problem.train_item_degree), item_warmth(problem.train_item_degree))
    pairs = {name: sum(group["num_held_out"] for group in groups.values()) for name, groups in found.items()}
    assert pairs["item_warmth"] == sum(map(len, problem.held_out))
    assert pairs["item_popularity"] == pairs["item_warmth"] - found["item_warmth"]["cold"]["num_held_out"]


def test_items_by_what_they_have():
    present = {
        "text": np.array([True, False, True, True, False, True]),
        "image": np.array([True, False, True, False, True, True]),
    }
    part = item_modalities(present)
    assert part.groups[0] == "image+text" and sorted(part.groups) == ["image", "image+text", "none", "text"]
    names = [part.groups[g] for g in part.group_of(np.zeros(6, dtype=int), np.arange(6))]
    assert names == ["image+text", "none", "image+text", "text", "image", "image+text"]


def test_rare_patterns_are_one_group():
    # Pattern p of five modalities has 40 − p items: 32 patterns, of which 15 keep a group of their own.
    patterns = np.repeat(np.arange(32), 40 - np.arange(32))
    present = {f"m{bit}": (patterns >> bit & 1).astype(bool) for bit in range(5)}
    part = item_modalities(present)
    assert len(part.groups) == 16 and part.groups[-1] == "others"
    assert part.groups[:4] == ("none", "m0", "m1", "m0+m1")
    groups = part.group_of(np.zeros(len(patterns), dtype=int), np.arange(len(patterns)))
    np.testing.assert_array_equal(groups, np.minimum(patterns, 15))
