"""Comparisons of runs in a real MLflow store whose values are known, against SciPy and by hand."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tracked_runs import Store, final, searched

import braidrec
from braidrec.config.base import ConfigError
from braidrec.config.compare import CompareConfig
from braidrec.evaluation.significance import PairStatistics
from braidrec.search.compare import read_comparison
from braidrec.search.compare_result import Comparison, Figure
from braidrec.search.compare_runs import short_names
from braidrec.search.compare_words import p_value, verdict_of
from braidrec.tracking.reader import RunReader, TrackedRun
from braidrec.tracking.store import connect

USERS = 400


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Making the tables takes seconds: once, and then copied."""
    file = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Store:
    return Store(Path(shutil.copy(empty_store, tmp_path / "mlflow.db")))


def values(shift: float, seed: int) -> np.ndarray:
    """Test values of users who differ much; the seed's own noise is small."""
    level = np.random.default_rng(0).beta(2, 4, USERS)
    return np.round(level + shift + np.random.default_rng(seed + 1000).normal(0, 0.05, USERS), 6)


def read(store: Store, **options: Any) -> Comparison:
    options = {"resamples": 400, **({} if "runs" in options else {"experiment": "tests"}), **options}
    return read_comparison(CompareConfig(tracking_uri=store.uri, **options))


def add_candidate(
    store: Store, timing: str, shift: float, curve: tuple[float, ...], seeds: int = 3
) -> list[np.ndarray]:
    runs = [values(shift, seed * 7 + len(timing)) for seed in range(seeds)]
    for seed, users in enumerate(runs):
        store.add(
            f"{timing}-{seed}", params={"seed": str(seed), "model.fusion.timing": timing, "name": f"{timing}-{seed}"},
            curve=[value + seed / 1000 for value in curve], users=users,
        )  # fmt: skip
    return runs


def test_plain_runs_that_differ_in_their_seed_are_one_candidate(store: Store) -> None:
    early = add_candidate(store, "early", 0.0, (0.1, 0.4, 0.3))
    late = add_candidate(store, "late", 0.04, (0.2, 0.3, 0.35))
    found = read(store)
    assert [each.label for each in found.contenders] == ["timing=early", "timing=late"]  # best on validation first
    first, second = found.contenders
    assert first.validation.values == pytest.approx((0.4, 0.401, 0.402))
    assert second.test.values == pytest.approx([run.mean() for run in late])
    assert second.test.spread == pytest.approx(np.std([run.mean() for run in late], ddof=1))
    assert (first.seeds, found.num_users, found.dataset[0]) == (("0", "1", "2"), USERS, "planted")
    assert (first.cost.seconds, first.cost.parameters, first.cost.memory_mb) == (4.5, 1234, 100)
    (pair,) = found.pairs
    a, b = np.mean(late, axis=0), np.mean(early, axis=0)
    assert (pair.better, pair.worse, pair.verdict) == ("timing=late", "timing=early", "real")
    assert pair.statistics.difference == pytest.approx((a - b).mean())
    assert pair.statistics.t_p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert pair.statistics.wilcoxon_p == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert pair.statistics.better == np.sum(a > b)
    assert pair.statistics.interval[0] < pair.statistics.difference < pair.statistics.interval[1]
    assert "it is real" in pair.sentence
    # The choice stays with validation though test says otherwise, which is told.
    assert found.winner is first and "timing=late did really better" in " ".join(found.conclusions)


def test_a_difference_within_the_seeds_is_not_real(store: Store) -> None:
    """All users gain in every seed pair's mean, but seeds of one candidate differ more among themselves."""
    for timing, shift in (("early", 0.0), ("late", 0.01)):
        for seed, own in enumerate((-0.05, 0.0, 0.05)):
            level = np.random.default_rng(0).beta(2, 4, USERS) + np.random.default_rng(seed).normal(0, 0.001, USERS)
            noise = np.random.default_rng(seed + 50).normal(0, 0.002, USERS) if timing == "late" else 0.0
            params = {"seed": str(seed), "model.fusion.timing": timing}
            store.add(f"{timing}{seed}", params=params, users=level + shift + own + noise)
    (pair,) = read(store).pairs
    assert pair.statistics.wilcoxon_holm < 1e-6 and pair.statistics.t_holm < 1e-6
    assert pair.spread == pytest.approx(math.sqrt(2) * 0.05, rel=0.05)
    assert pair.verdict == "within the seeds"


def test_one_seed_is_never_enough(store: Store) -> None:
    add_candidate(store, "early", 0.0, (0.1,), seeds=1)
    add_candidate(store, "late", 0.2, (0.2,), seeds=1)
    found = read(store)
    assert found.pairs[0].verdict == "one seed" and found.pairs[0].spread is None
    assert "2 of 2 candidates have one seed" in found.conclusions[-1]


def statistics(**changes: Any) -> PairStatistics:
    plain = {
        "first": 0, "second": 1, "difference": 0.1, "interval": (0.05, 0.15), "t_p": 0.0, "wilcoxon_p": 0.0,
        "t_holm": 0.01, "wilcoxon_holm": 0.01, "cohens_d": 1.0, "rank_biserial": 0.5, "better": 9, "worse": 1,
    }  # fmt: skip
    return PairStatistics(**{**plain, **changes})


@pytest.mark.parametrize(
    ("changes", "spread", "verdict"),
    [
        ({}, 0.05, "real"),
        ({}, 0.1, "within the seeds"),
        ({}, None, "one seed"),
        ({"t_holm": 0.05}, 0.05, "tests disagree"),
        ({"wilcoxon_holm": 0.2}, None, "tests disagree"),
        ({"rank_biserial": -0.5}, 0.05, "tests disagree"),
        ({"t_holm": 0.3, "wilcoxon_holm": 0.2}, 0.01, "chance"),
        ({"better": 0, "worse": 0, "difference": 0.0}, 0.01, "equal"),
        ({"difference": -0.1, "rank_biserial": -0.5}, 0.05, "real"),
    ],
)
def test_every_verdict(changes: dict[str, Any], spread: float | None, verdict: str) -> None:
    assert verdict_of(statistics(**changes), spread, 0.05) == verdict


REASONS = {3: {"braidrec.failure": "diverged"}, 4: {"braidrec.stopped": "less promising"}}


def make_sweep(store: Store, name: str = "fusion", winner: int = 2) -> str:
    parent = store.sweep(name, files={"winner.yaml": f"# {name}\n"}, winner=winner)
    for number, (timing, rate) in enumerate([("early", 0.1), ("late", 0.2), ("early", 0.3), ("late", 0.01)], start=1):
        settings = {"model.fusion.timing": timing, "objective.rate": rate}
        state = {3: "failed", 4: "stopped_early"}.get(number, "finished")
        tags = searched(parent, number, settings, state) | {"braidrec.end_reason": "FINISHED"} | REASONS.get(number, {})
        store.add(f"{name}-{number}", tags=tags, curve=[0.1 * number], status="FAILED" if number == 3 else "FINISHED")
    for number in (1, 2):
        for seed in (1, 2):
            tags = final(parent, number, {"model.fusion.timing": ["early", "late"][number - 1]}, seed)
            store.add(f"{name}-{number}-{seed}", tags=tags, params={"seed": str(seed)}, curve=[0.3 + number / 10],
                      users=values(0.03 * number, 10 * number + seed),
                      files={"config.yaml": f"# final {number} of {name}, seed {seed}\n"})  # fmt: skip
    return parent


def test_one_part_of_the_users_says_which_metrics_they_have(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = store.add("tested", users=[0.1, 0.2, 0.3, 0.4])
    reader, fetched = RunReader(store.uri), list[str]()
    real = RunReader._download

    def download(self: RunReader, run: TrackedRun, path: str) -> bytes:
        fetched.append(path)
        return real(self, run, path)

    monkeypatch.setattr(RunReader, "_download", download)
    (run,) = reader.runs([run_id])
    assert reader.per_user_metrics(run) == ["recall@20"] and len(fetched) == 1
    table = reader.per_user(run, ["recall@20"])
    assert table is not None and table["recall@20"].to_pylist() == [0.1, 0.2, 0.3, 0.4] and len(fetched) == 3


def test_a_sweep(store: Store) -> None:
    parent = make_sweep(store)
    found = read(store, runs=(parent,))
    assert [(each.label, each.seeds) for each in found.contenders] == [("trial 2", ("1", "2")), ("trial 1", ("1", "2"))]
    assert [trial.state for trial in found.trials] == ["finished", "finished", "failed", "stopped_early"]
    assert found.trials[3].settings == {"model.fusion.timing": "late", "objective.rate": 0.01}
    assert [trial.reason for trial in found.trials] == ["FINISHED", "FINISHED", "diverged", "less promising"]
    assert found.conclusions[0].startswith("trial 2 (timing=late) is best on validation (recall@20 0.5000)")
    assert (found.title, found.winner_yaml, found.best_on_test) == ("fusion", "# fusion\n", {})
    assert read(store).contenders == found.contenders  # the experiment holds nothing else


def test_the_winner_again_is_the_winner_of_the_comparison(store: Store) -> None:
    """A sweep's own winner.yaml is taken for no other candidate: not the first of two sweeps', nor another one's."""
    first, second = make_sweep(store, "first", winner=1), make_sweep(store, "second")
    assert read(store, runs=(first,)).winner_yaml == "# final 2 of first, seed 1\n"
    parent = store.sweep("third", files={"winner.yaml": "# third\n"}, winner=9)
    tags = final(parent, 9, {"model.fusion.timing": "late"}, 1)
    store.add("third-9-1", tags=tags, params={"seed": "1"}, curve=[0.9], users=values(0.0, 5))
    found = read(store, runs=(first, second, parent))
    assert found.winner_yaml == "# third\n" and found.title == "first and second and third"


def test_a_candidate_that_lacks_a_run_comes_after_all_that_have_theirs(store: Store) -> None:
    parent = make_sweep(store)
    for seed in (1, 2):
        tags = final(parent, 3, {"model.fusion.timing": "early"}, seed)
        store.add(f"fusion-3-{seed}", tags=tags, params={"seed": str(seed)}, curve=[0.9], users=values(0.2, seed),
                  status="FAILED" if seed == 2 else "FINISHED")  # fmt: skip
    found = read(store, runs=(parent,))
    assert [each.label for each in found.contenders] == ["trial 2", "trial 1", "trial 3"]
    assert found.contenders[2].validation.mean == 0.9 and found.winner_yaml == "# fusion\n"


def test_what_was_chosen_on_test_is_told_as_such(store: Store) -> None:
    parent = store.sweep("watched", metrics={"chosen_on_test/recall_at_20": 0.7, "winner/test/recall_at_20": 0.6})
    store.add("t1", tags=searched(parent, 1, {"a": 1}))
    assert read(store, runs=(parent,)).best_on_test == {"recall@20": 0.7}


def test_a_metric_without_values_of_single_users_is_compared_by_another_one(store: Store) -> None:
    for timing, curve in (("early", (1.2, 0.9)), ("late", (1.1,))):
        params = {"seed": "1", "model.fusion.timing": timing, "evaluation.monitor": "rmse"}
        store.add(timing, params=params, curve=curve, users=values(0.0, len(timing)))
    found = read(store)
    assert (found.metric, found.monitor) == ("recall@20", "rmse")
    assert [each.label for each in found.contenders] == ["timing=early", "timing=late"]
    assert found.notes[0].startswith("rmse has no values of single users") and "recall@20 on test" in found.notes[0]
    refused(store, "has no 'rmse' of single users", metric="rmse")


def test_a_metric_that_should_be_low_has_its_signs_and_its_users_the_right_way_round(store: Store) -> None:
    errors = {"early": values(0.0, 1), "late": values(0.1, 2)}
    for timing, users in errors.items():
        for seed in (1, 2):
            params = {"seed": str(seed), "model.fusion.timing": timing}
            store.add(f"{timing}{seed}", params=params, users=users + seed / 1000, column="rmse")
    (pair,) = read(store, metric="rmse").pairs
    assert (pair.better, pair.verdict) == ("timing=early", "real")
    low, high = pair.statistics.interval
    difference = (errors["early"] - errors["late"]).mean()
    assert low < pair.statistics.difference < high < 0 and pair.statistics.difference == pytest.approx(difference)
    assert f"a difference of {difference:.4f} [{low:.4f}, {high:.4f}]" in pair.sentence
    assert pair.statistics.better == np.sum(errors["early"] < errors["late"]) > pair.statistics.worse


def test_a_sweep_without_finals_says_that_nothing_was_tested(store: Store) -> None:
    parent = store.sweep("untested")
    for number in (1, 2):
        store.add(f"t{number}", tags=searched(parent, number, {"a": number}), curve=[number / 10])
    found = read(store)
    assert found.contenders == [] and found.pairs == [] and found.winner is None
    assert "trial 2 is best on validation (recall@20 0.2000). Nothing was tested" in found.conclusions[0]


def test_several_sweeps_want_a_choice(store: Store) -> None:
    make_sweep(store, "first")
    make_sweep(store, "second")
    add_candidate(store, "early", 0.0, (0.1,))
    with pytest.raises(ConfigError, match=r"sweeps \['first', 'second'\] and 3 runs of no sweep: choose .*sweep=first"):
        read(store)
    assert read(store, sweep="second").title == "second"
    assert [each.label for each in read(store, sweep="none").contenders] == ["early-0"]
    with pytest.raises(ConfigError, match=r"no sweep 'third'; it has \['first', 'second'\]"):
        read(store, sweep="third")


def test_runs_again_with_one_seed_count_once_and_unfinished_ones_not_at_all(store: Store) -> None:
    add_candidate(store, "early", 0.0, (0.1,), seeds=2)
    newer = store.add("early-again", params={"seed": "1", "model.fusion.timing": "early"}, users=values(0.5, 3))
    store.add("late-killed", params={"seed": "1", "model.fusion.timing": "late"}, status="KILLED")
    store.add("late-untested", params={"seed": "2", "model.fusion.timing": "late"})
    found = read(store)
    (contender,) = found.contenders
    assert contender.run_ids[1] == newer and len(contender.run_ids) == 2
    assert contender.test.values[1] == pytest.approx(values(0.5, 3).mean())
    told = " ".join(found.notes)
    assert "1 killed" in told and "1 runs with the settings and the seed" in told and "1 runs that have no res" in told


def test_users_without_a_value_are_left_out_everywhere(store: Store) -> None:
    for timing, missing in (("early", 3), ("late", 5)):
        users = values(0.1 if timing == "late" else 0.0, 4)
        users[missing] = np.nan
        store.add(timing, params={"seed": "1", "model.fusion.timing": timing}, users=users)
    found = read(store)
    kept = [user for user in range(USERS) if user not in (3, 5)]
    assert found.num_users == USERS - 2 and "2 users for whom" in found.notes[-1]
    assert found.pairs[0].statistics.difference == pytest.approx(
        values(0.1, 4)[kept].mean() - values(0.0, 4)[kept].mean()
    )


def test_a_low_validation_value_may_be_the_best(store: Store) -> None:
    for timing, curve in (("early", (1.2, 0.9, 1.0)), ("late", (1.1, 1.0))):
        params = {"seed": "1", "model.fusion.timing": timing, "evaluation.monitor": "rmse"}
        store.add(timing, params=params, curve=curve, users=values(0.0, len(timing)))
    found = read(store, metric="recall@20")
    assert [each.label for each in found.contenders] == ["timing=early", "timing=late"]
    assert found.contenders[0].validation == Figure(values=(0.9,))


def test_results_that_were_not_copied_are_read_where_they_are(store: Store, tmp_path: Path) -> None:
    add_candidate(store, "early", 0.0, (0.1,), seeds=1)
    elsewhere = next(store.folder.glob("users-*"))
    (tmp_path / "large").mkdir()
    shutil.copytree(elsewhere, tmp_path / "large" / "test")
    store.add("late", params={"seed": "0", "model.fusion.timing": "late"},
              tags={"braidrec.artifact.per_user": str(tmp_path / "large")})  # fmt: skip
    assert read(store).pairs[0].verdict == "equal"


def refused(store: Store, message: str, **options: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        read(store, **options)


def test_what_does_not_compare_is_refused(store: Store) -> None:
    add_candidate(store, "early", 0.0, (0.1,), seeds=1)
    refused(store, "'testz'.*Did you mean 'tests'", experiment="testz")
    refused(store, "no run with the id 'abc'", runs=("abc",))
    refused(store, r"has no 'ndcg@10' of single users; it has \['recall@20'\]", metric="ndcg@10")
    refused(store, "no run is on 'other'; there are planted .*: 1 runs", dataset="other")
    store.add("other", params={"data.path": "/data/other", "seed": "1"}, dataset="f" * 64, users=values(0, 1))
    refused(store, r"different data sets.*other \(ffffffffffff…\): 1 runs, planted")
    assert len(read(store, dataset="ffff").contenders) == 1
    store.add("masked", params={"evaluation.mask": "train+valid"}, users=values(0, 1))
    refused(store, "evaluation.mask differs", dataset="planted")


def test_other_users_are_refused(store: Store) -> None:
    add_candidate(store, "early", 0.0, (0.1,), seeds=1)
    store.add("late", params={"seed": "1"}, users=values(0, 1)[:300], ids=range(300))
    refused(store, r"tested on different users \(400 and 300\)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "neither is given"),
        ({"experiment": "a", "runs": ["b"]}, "both are given"),
        ({"runs": ["b"], "sweep": "c"}, "name the sweep's id"),
        ({"experiment": "a", "storage": "/nowhere"}, "there is no folder /nowhere"),
        ({"experiment": "a", "tracking_uri": "sqlite:////nowhere/mlflow.db"}, "there is no /nowhere/mlflow.db"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        braidrec.compare(**options)


def test_names() -> None:
    names = short_names(
        ["model.fusion.timing", "objective.loss.kind", "objective.ssl.rate", "model.item.ssl.rate", "a"]
    )
    assert names == {
        "model.fusion.timing": "timing", "objective.loss.kind": "loss.kind", "a": "a",
        "objective.ssl.rate": "objective.ssl.rate", "model.item.ssl.rate": "item.ssl.rate",
    }  # fmt: skip
    assert [p_value(p) for p in (0.0004, 0.0421, 1.0)] == ["< .001", "= .042", "= 1.000"]
