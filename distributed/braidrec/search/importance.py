"""Which settings of a search mattered: functional ANOVA, by branch of a conditional space, over equally long trials."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MIN_TRIALS = 8
"""With fewer, a forest of regression trees has nothing to say."""


@dataclass(frozen=True, kw_only=True)
class TrialScore:
    """A trial: the keys that were active in it, and its best validation value so far by epoch."""

    settings: Mapping[str, Any]
    curve: Mapping[int, float]
    """epoch → value, ascending."""
    stopped_early: bool = False

    @property
    def length(self) -> int:
        """Epochs that it was trained for."""
        return max(self.curve, default=0)


@dataclass(frozen=True, kw_only=True)
class Importance:
    """How much of the variance of the score each key explains, over the trials of one branch and length.

    Attributes:
        branch: what all its trials have in common: "all trials", or the keys beyond the common ones.
        trials: how many.
        epochs: the score is the best one within so many epochs; None: within the whole training.
        shares: key → share, adding up to 1, largest first.
    """

    branch: str
    trials: int
    epochs: int | None
    shares: Mapping[str, float]


def importances(trials: Sequence[TrialScore], *, higher_is_better: bool, seed: int = 0) -> list[Importance]:
    """fANOVA importances (Hutter, Hoos and Leyton-Brown, ICML 2014), by Optuna.

    A trial that a scheduler stopped is no match for one that ran to its end. So all trials are compared by what they
    reached within the epochs that every one of them was trained for; and, where some were stopped, those that were not
    also by their whole training, which is fairer to settings that learn slowly, but sees the survivors only. A trial
    that ended by itself before (patience) keeps its best.

    Where keys exist under others' values only, all trials are judged by the keys that they share, and those of each
    branch, that is: with the same active keys, by all of theirs.

    Args:
        trials: those that did not fail.
        higher_is_better: the direction of the score.
        seed: of the forests.
    Returns:
        An entry for each branch and length that has at least `MIN_TRIALS` trials and a key that varies.
    """
    usable = [trial for trial in trials if trial.curve]
    stopped = [trial.length for trial in usable if trial.stopped_early]
    lengths: list[tuple[int | None, list[TrialScore]]] = []
    if stopped:
        lengths.append((min(stopped), usable))
    lengths.append((None, [trial for trial in usable if not trial.stopped_early]))
    sign = 1.0 if higher_is_better else -1.0
    found = []
    for epochs, group in lengths:
        for branch, keys, members in _branches(group):
            scores = [_score(trial, epochs, sign) for trial in members]
            points = [
                (trial.settings, sign * score)
                for trial, score in zip(members, scores, strict=True)
                if score is not None
            ]
            entry = _importance(points, keys, seed)
            if entry:
                found.append(Importance(branch=branch, trials=len(points), epochs=epochs, shares=entry))
    return found


def _score(trial: TrialScore, epochs: int | None, sign: float) -> float | None:
    reached = [sign * value for epoch, value in trial.curve.items() if epochs is None or epoch <= epochs]
    return sign * max(reached) if reached else None


def _branches(trials: Sequence[TrialScore]) -> list[tuple[str, list[str], list[TrialScore]]]:
    """(name, keys, trials) of all trials together, then of each set of active keys where there are several."""
    if not trials:
        return []
    by_keys: dict[tuple[str, ...], list[TrialScore]] = {}
    for trial in trials:
        by_keys.setdefault(tuple(sorted(trial.settings)), []).append(trial)
    common = sorted(set.intersection(*(set(keys) for keys in by_keys)))
    branches = [("all trials", common, list(trials))]
    if len(by_keys) > 1:
        for keys, members in sorted(by_keys.items(), key=lambda entry: -len(entry[1])):
            extra = [key for key in keys if key not in common]
            name = f"with {', '.join(extra)}" if extra else "with the common keys alone"
            branches.append((name, list(keys), members))
    return branches


def _importance(points: Sequence[tuple[Mapping[str, Any], float]], keys: Sequence[str], seed: int) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

    varying = [key for key in keys if len({repr(settings[key]) for settings, _ in points}) > 1]
    if len(points) < MIN_TRIALS or not varying or len({score for _, score in points}) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: _distribution([settings[key] for settings, _ in points]) for key in varying}
    study = optuna.create_study(direction="maximize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=UserWarning)
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params={key: _value(settings[key], distributions[key]) for key in varying},
                    distributions=distributions,
                    value=score,
                )
                for settings, score in points
            ]
        )
        shares = optuna.importance.get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed))
    return {key: float(share) for key, share in sorted(shares.items(), key=lambda entry: -entry[1])}


def _distribution(values: Sequence[Any]) -> Any:
    """Numbers as a range between the extremes seen, logarithmic where they span two orders; all else as choices."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not all(is_number(value) for value in values):
        return CategoricalDistribution(sorted({str(value) for value in values}))
    low, high = min(values), max(values)
    log = low > 0 and high / low >= 100
    if all(isinstance(value, int) for value in values):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def _value(value: Any, distribution: Any) -> Any:
    return str(value) if type(distribution).__name__ == "CategoricalDistribution" else value


def is_number(value: Any) -> bool:
    """Whether a setting lies on an axis of numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool)
