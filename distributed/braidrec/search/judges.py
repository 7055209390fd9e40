"""Which trials Ray Tune stops early: ASHA, median stopping, none; and telling a new judge what an earlier one saw."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler

from braidrec.config.load import ConfigError
from braidrec.config.sweep import ASHAConfig, MedianConfig, NoSchedulerConfig
from braidrec.search.records import TrialRecord


@dataclass(frozen=True, kw_only=True)
class PastTrial:
    """As much of a trial of an earlier session as a scheduler asks for."""

    trial_id: str


def make_judge(config: NoSchedulerConfig | ASHAConfig | MedianConfig, sign: int, epochs: int) -> TrialScheduler | None:
    """Ray Tune's scheduler; None where nothing is stopped.

    Args:
        config: which.
        sign: 1 where a high score is good.
        epochs: that the longest trial may have.
    Raises:
        ConfigError: every trial would be over before it could be stopped.
    """
    if isinstance(config, NoSchedulerConfig):
        return None
    if config.grace >= epochs:
        raise ConfigError(
            f"scheduler.grace={config.grace}: a trial has at most {epochs} epochs (training.epochs), so none would "
            "ever be stopped; use a smaller grace or scheduler.kind=none"
        )
    common = {"time_attr": "epoch", "metric": "score", "mode": "max" if sign == 1 else "min"}
    if isinstance(config, ASHAConfig):
        # One epoch more than there are: a trial that reaches its last one ends by itself, with its results.
        return AsyncHyperBandScheduler(
            **common, grace_period=config.grace, max_t=epochs + 1, reduction_factor=config.reduction
        )
    return MedianStoppingRule(
        **common,
        grace_period=config.grace,
        min_samples_required=config.trials,
        min_time_slice=float("inf"),  # never pauses a trial for another one's sake
    )


def replay(judge: TrialScheduler, records: Iterable[TrialRecord]) -> None:
    """Tell a judge what became of the trials that have ended, so that it measures others by them."""
    for record in records:
        if record.state == "running" or not record.curve:
            continue
        past = PastTrial(trial_id=record.name)
        judge.on_trial_add(None, past)
        result: dict[str, Any] = {}
        for epoch, score in record.curve:
            result = {"epoch": epoch, "score": score}
            if isinstance(judge, MedianStoppingRule):
                # It keeps what it is told at an end and judges nothing: asked for a decision it might stop the past.
                judge.on_trial_complete(None, past, result)
            else:
                judge.on_trial_result(None, past, result)
        judge.on_trial_complete(None, past, result)
