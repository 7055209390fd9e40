"""Who is stopped: ASHA by hand and on a synthetic objective; median stopping; a judge that learns of earlier trials."""

from typing import Any

import pytest
from ray.tune.schedulers import TrialScheduler
from search_cases import ended

from braidrec.config.load import ConfigError
from braidrec.config.sweep import ASHAConfig, MedianConfig, NoSchedulerConfig
from braidrec.search.judges import PastTrial, make_judge, replay
from braidrec.search.records import TrialRecord


def decisions(judge: Any, name: str, scores: list[float]) -> int:
    """The epoch after which a trial with these scores is stopped; their number if it never is."""
    trial = PastTrial(trial_id=name)
    judge.on_trial_add(None, trial)
    for epoch, score in enumerate(scores, start=1):
        if judge.on_trial_result(None, trial, {"epoch": epoch, "score": score}) == TrialScheduler.STOP:
            return epoch
    return len(scores)


def test_asha_stops_at_rungs_who_is_not_among_the_best_half() -> None:
    judge = make_judge(ASHAConfig(grace=2, reduction=2), 1, 8)
    assert decisions(judge, "first", [0.5] * 8) == 8  # nobody to be compared with
    assert decisions(judge, "worse", [0.4] * 8) == 2  # below the median of {.5}
    assert decisions(judge, "better", [0.6] * 8) == 8
    assert decisions(judge, "level", [0.55] * 8) == 8  # at the rung of 4 epochs the median of {.5, .6}
    assert decisions(judge, "fades", [0.54] * 8) == 4  # above the median of {.5, .4, .6, .55}, then below {.5, .6, .55}


def test_asha_with_a_metric_that_should_be_low() -> None:
    judge = make_judge(ASHAConfig(grace=2, reduction=2), -1, 8)
    assert decisions(judge, "first", [0.5] * 8) == 8
    assert decisions(judge, "higher", [0.6] * 8) == 2
    assert decisions(judge, "lower", [0.4] * 8) == 8


def test_asha_saves_most_epochs_and_keeps_the_best_of_a_synthetic_objective() -> None:
    """27 trials whose curves do not cross; the best comes last. Without a judge they cost 27 · 27 epochs."""
    judge = make_judge(ASHAConfig(grace=1, reduction=3), 1, 27)
    curves = [[level * epoch / (epoch + 2) for epoch in range(1, 28)] for level in range(1, 28)]
    order = [*range(25, -1, -1), 26]
    lengths = {index: decisions(judge, str(index), curves[index]) for index in order}
    assert lengths[26] == 27
    assert sum(lengths.values()) < 27 * 27 / 4


def test_median_stopping_waits_for_its_trials_and_never_pauses_one() -> None:
    judge = make_judge(MedianConfig(grace=2, trials=3), 1, 5)
    assert [decisions(judge, name, [level] * 5) for name, level in [("a", 0.5), ("b", 0.1), ("c", 0.6)]] == [5, 5, 5]
    assert decisions(judge, "d", [0.4] * 5) == 2  # the median of {.5, .1, .6} is .5
    assert decisions(judge, "e", [0.55] * 5) == 5


@pytest.mark.parametrize("config", [ASHAConfig(grace=2, reduction=2), MedianConfig(grace=2, trials=2)])
def test_a_new_judge_that_is_told_of_earlier_trials_decides_like_the_old_one(config: Any) -> None:
    old, new = make_judge(config, 1, 10), make_judge(config, 1, 10)
    records: list[TrialRecord] = []
    for number, level in enumerate([0.5, 0.8, 0.3, 0.6], start=1):
        record = ended(number, {}, level)
        stopped = decisions(old, record.name, [score for _, score in record.curve])
        record.curve = record.curve[:stopped]
        record.state = "finished" if stopped == 10 else "stopped_early"
        old.on_trial_complete(None, PastTrial(trial_id=record.name), {"epoch": stopped, "score": record.curve[-1][1]})
        records.append(record)
    assert new is not None
    replay(new, records)
    for level in (0.2, 0.45, 0.7, 0.9):
        scores = [level * epoch / 10 for epoch in range(1, 11)]
        assert decisions(new, f"x{level}", scores) == decisions(old, f"x{level}", scores)


def test_median_stopping_takes_a_curve_that_it_would_stop_and_asks_no_further() -> None:
    """A trial that a budget ended late may be worse than the median of those that it is replayed after."""
    judge = make_judge(MedianConfig(grace=2, trials=2), 1, 10)
    assert judge is not None
    replay(judge, [ended(number, {}, level) for number, level in enumerate([0.8, 0.9, 0.1, 0.2], start=1)])
    # The medians of the means at epoch 2 are between .03 and .12.
    assert decisions(judge, "low", [0.02] * 10) == 2
    assert decisions(judge, "high", [0.9] * 10) == 10


def test_nothing_is_judged_without_a_scheduler_or_stopped_within_its_grace() -> None:
    assert make_judge(NoSchedulerConfig(), 1, 5) is None
    with pytest.raises(ConfigError, match=r"scheduler\.grace=5: a trial has at most 5 epochs"):
        make_judge(ASHAConfig(grace=5), 1, 5)
