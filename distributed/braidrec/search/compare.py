"""`braidrec.compare`: which candidate is best, is the difference real, what mattered, and what does it cost?

Candidates are chosen on validation. On test they are compared user by user, a user's value being the mean over the
seeds. A difference is called real only if both paired tests find it after Holm's correction over all pairs, and if it
also exceeds the spread between seeds.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from braidrec.config.base import ConfigError
from braidrec.config.compare import CompareConfig
from braidrec.config.load import validate
from braidrec.evaluation.metrics import higher_is_better
from braidrec.evaluation.significance import (
    PairStatistics,
    bootstrap_means,
    compare_pairs,
    interval,
    seed_spread,
)
from braidrec.places import absolute_place
from braidrec.search.compare_read import RunFacts, aligned, figures, label_all, mean_cost
from braidrec.search.compare_result import Comparison, Contender, Figure, Pair, Trial
from braidrec.search.compare_runs import (
    Progress,
    Selection,
    candidate_of,
    data_name,
    group_by_candidate,
    select,
    settings_of,
)
from braidrec.search.compare_words import conclusions, sentence_of, verdict_of
from braidrec.search.importance import importances
from braidrec.tracking.reader import CHOSEN_ON_TEST, WINNER_TAG, RunReader, TrackedRun
from braidrec.tracking.store import default_tracking_uri


def compare(*, progress: Progress = lambda done, total: None, **options: object) -> Comparison:
    """Compare tracked runs and write the report.

    Args:
        progress: called with (runs read, runs in all).
        options: the keys of `CompareConfig`: experiment or runs, sweep, dataset, metric, storage, report, …
    Raises:
        ConfigError: no such runs, or runs whose figures do not compare.
    """
    return compare_config(validate(CompareConfig, options, "compare()"), progress)


def compare_config(config: CompareConfig, progress: Progress = lambda done, total: None) -> Comparison:
    """The same from a validated configuration, as jobs/compare.py calls it."""
    from braidrec.search.report import write_comparison

    comparison = read_comparison(config, progress)
    target = Path(absolute_place(config.report)) if config.report else _default_report(config, comparison)
    return replace(comparison, report=str(write_comparison(comparison, target)))


def read_comparison(config: CompareConfig, progress: Progress = lambda done, total: None) -> Comparison:
    """Everything but the report.

    Raises:
        ConfigError: see `compare`.
    """
    reader = RunReader(_where_tracked(config))
    selection = select(config, reader)
    runs = [*selection.searched, *selection.tested]
    monitor = _monitor(runs)
    metric = config.metric or _compared(reader, selection, monitor)
    facts = RunFacts(reader, monitor, _direction(monitor), metric)
    count = _Count(len(selection.searched) + len(selection.tested), progress)
    trials = _trials(selection.searched, facts, count)
    contenders, values, means = _contenders(selection, facts, config, count)
    pairs = _pairs(contenders, values, means, config, metric) if len(contenders) > 1 else []
    told = conclusions(contenders, pairs, metric, monitor) or [_untested(trials, monitor)]
    return Comparison(
        title=selection.title,
        metric=metric,
        monitor=monitor,
        higher_is_better=_direction(metric),
        monitor_is_high=_direction(monitor),
        confidence=config.confidence,
        dataset=(data_name(runs[0]), runs[0].dataset),
        num_users=len(values),
        contenders=contenders,
        pairs=pairs,
        trials=trials,
        importances=importances(
            [trial.as_score() for trial in trials if trial.state != "failed"], higher_is_better=_direction(monitor)
        ),
        conclusions=told,
        notes=selection.notes,
        winner_yaml=_winner_yaml(reader, selection, contenders[0].run_ids[0] if contenders else None),
        best_on_test=_chosen_on_test(selection),
    )


class _Count:
    """Runs read so far."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def one_more(self) -> None:
        self._done += 1
        self._progress(self._done, self._total)


def _where_tracked(config: CompareConfig) -> str:
    """Where the runs are tracked.

    Raises:
        ConfigError: remote storage without a tracking URI.
    """
    if config.tracking_uri is not None:
        return config.tracking_uri
    storage = absolute_place(config.storage)
    if "://" not in storage and not Path(storage).is_dir():
        raise ConfigError(f"storage: there is no folder {storage}: set storage to where the runs are, or tracking_uri")
    try:
        return default_tracking_uri(storage)
    except ValueError as error:
        raise ConfigError(str(error).replace("tracking.uri", "tracking_uri")) from None


def _monitor(runs: Sequence[TrackedRun]) -> str:
    told = next((run.params["evaluation.monitor"] for run in runs if "evaluation.monitor" in run.params), "recall@20")
    if told == "null":
        raise ConfigError(
            "evaluation.monitor is null in these runs: nothing was chosen on validation, so there is nothing to choose "
            "a candidate by; train with a monitored metric"
        )
    return told


def _compared(reader: RunReader, selection: Selection, monitor: str) -> str:
    """The test metric where none was asked for: the monitored one, or one that has values of single users."""
    known = next((names for run in selection.tested if (names := reader.per_user_metrics(run))), [])
    if not known or monitor in known:
        return monitor
    same_k = [name for name in known if name.partition("@")[2] == monitor.partition("@")[2]]
    found = next((name for name in (*same_k, *known) if name.startswith("recall@")), known[0])
    selection.notes.append(
        f"{monitor} has no values of single users, which tests need: candidates are chosen by it on validation and "
        f"compared by {found} on test; --set metric=NAME takes another one of {', '.join(known)}."
    )
    return found


def _direction(metric: str) -> bool:
    try:
        return higher_is_better(metric)
    except ValueError as error:
        raise ConfigError(f"metric: {error}") from None


def _trials(runs: Sequence[TrackedRun], facts: RunFacts, count: _Count) -> list[Trial]:
    settings = settings_of(runs)
    found = []
    for run, label, own in zip(runs, label_all(runs, settings), settings, strict=True):
        found.append(facts.trial(run, label, own))
        count.one_more()
    return found


def _contenders(
    selection: Selection, facts: RunFacts, config: CompareConfig, count: _Count
) -> tuple[list[Contender], np.ndarray, np.ndarray]:
    """Best on validation first; [users, contenders] values of the users and [resamples, contenders] their bootstrapped
    means, in the same order. As in a sweep, who lacks a run comes last: its mean is over other seeds than theirs."""
    groups, users = [], []
    untested = 0
    for group in group_by_candidate(selection.tested, selection.notes):
        values = []
        for run in group:
            values.append(facts.users(run))
            count.one_more()
        kept = [(run, own) for run, own in zip(group, values, strict=True) if own is not None]
        untested += len(group) - len(kept)
        if kept:
            groups.append([run for run, _ in kept])
            users.append([own for _, own in kept])
    if untested:
        selection.notes.append(f"Left out of the tests: {untested} runs that have no results of single users.")
    if not groups:
        return [], np.empty((0, 0)), np.empty((0, 0))
    matrix, undefined = aligned(users)
    if undefined:
        selection.notes.append(f"Left out: {undefined:,} users for whom the metric is undefined.")
    if len(matrix) < 2:
        raise ConfigError(f"metric: it is defined for {len(matrix)} users only, which is too few to compare anything")
    means = bootstrap_means(matrix, resamples=config.resamples, seed=config.seed)
    found = [
        _contender(group, label, settings, facts, [float(np.nanmean(own.values)) for own in values], column, config)
        for group, label, settings, values, column in zip(
            groups, *_named(groups), users, means.T, strict=True
        )
    ]  # fmt: skip
    sign = 1 if _direction(_monitor(selection.tested)) else -1

    def rank(index: int) -> tuple[bool, float, int]:
        candidate = candidate_of(groups[index][0])
        number = int(candidate[1]) if candidate[1].isdecimal() else 0
        return candidate in selection.incomplete, -sign * found[index].validation.mean, number

    order = sorted(range(len(found)), key=rank)
    return [found[index] for index in order], matrix[:, order], means[:, order]


def _named(groups: Sequence[Sequence[TrackedRun]]) -> tuple[list[str], list[dict[str, object]]]:
    first = [group[0] for group in groups]
    settings = settings_of(first)
    return label_all(first, settings), settings


def _contender(
    group: Sequence[TrackedRun],
    label: str,
    settings: dict[str, object],
    facts: RunFacts,
    tests: Sequence[float],
    resampled: np.ndarray,
    config: CompareConfig,
) -> Contender:
    trials = [facts.trial(run, label, settings) for run in group]
    scores = [trial.score for trial in trials if trial.score is not None]
    if not scores:
        raise ConfigError(f"run {group[0].name!r} has no validation values: it cannot be chosen or refused by them")
    slices = [facts.slices(run) for run in group]
    return Contender(
        label=label,
        settings=settings,
        fusion=trials[0].fusion,
        run_ids=tuple(run.run_id for run in group),
        seeds=tuple(run.params.get("seed", "?") for run in group),
        validation=Figure(values=tuple(scores)),
        test=Figure(values=tuple(tests)),
        interval=interval(resampled, config.confidence),
        cost=mean_cost([trial.cost for trial in trials]),
        slices={
            name: figures([each.get(name, {}) for each in slices])
            for name in dict.fromkeys(name for each in slices for name in each)
        },
        without=figures([facts.without(run) for run in group]),
    )


def _pairs(
    contenders: Sequence[Contender], values: np.ndarray, means: np.ndarray, config: CompareConfig, metric: str
) -> list[Pair]:
    found = compare_pairs(values, confidence=config.confidence, higher_is_better=_direction(metric), means=means)
    return [_pair(contenders, statistics, 1 - config.confidence, metric) for statistics in found]


def _pair(contenders: Sequence[Contender], found: PairStatistics, level: float, metric: str) -> Pair:
    sign = 1 if _direction(metric) else -1
    ahead = found if sign * found.difference >= 0 else _turned(found)
    better, worse = contenders[ahead.first], contenders[ahead.second]
    spread = seed_spread(better.test.values, worse.test.values)
    verdict = verdict_of(ahead, spread, level)
    return Pair(
        better=better.label,
        worse=worse.label,
        statistics=ahead,
        spread=spread,
        verdict=verdict,
        sentence=sentence_of(better, worse, ahead, spread, verdict, metric),
    )


def _turned(found: PairStatistics) -> PairStatistics:
    """The same pair the other way round."""
    low, high = found.interval
    return replace(
        found,
        first=found.second,
        second=found.first,
        difference=-found.difference,
        interval=(-high, -low),
        cohens_d=-found.cohens_d,
        rank_biserial=-found.rank_biserial,
        better=found.worse,
        worse=found.better,
    )


def _untested(trials: Sequence[Trial], monitor: str) -> str:
    high = _direction(monitor)
    scored = [trial for trial in trials if trial.score is not None and trial.state != "failed"]
    if not scored:
        return "No run has a validation value: there is nothing to conclude."
    best = (max if high else min)(scored, key=lambda trial: trial.score or 0.0)
    return (
        f"{best.label} is best on validation ({monitor} {best.score:.4f}). Nothing was tested, so whether it is really "
        "better than the others is not known: train the best few with several seeds."
    )


def _winner_yaml(reader: RunReader, selection: Selection, winner: str | None) -> str | None:
    """What the sweep has stored, if that is of this winner: another metric or several sweeps may have another one."""
    if winner is None:
        parents = list(selection.parents.values())
        return reader.text(parents[0], "winner.yaml") if len(parents) == 1 else None
    run = next(run for run in selection.tested if run.run_id == winner)
    sweep, number = candidate_of(run)
    parent = selection.parents.get(sweep or "")
    if parent is not None and parent.tags.get(WINNER_TAG) == number:
        told = reader.text(parent, "winner.yaml")
        if told is not None:
            return told
    return reader.text(run, "config.yaml")


def _chosen_on_test(selection: Selection) -> dict[str, float]:
    """Of a single sweep that was asked for it."""
    parents = list(selection.parents.values())
    logged = parents[0].metrics if len(parents) == 1 else {}
    return {
        name.removeprefix(CHOSEN_ON_TEST).replace("_at_", "@"): value
        for name, value in logged.items()
        if name.startswith(CHOSEN_ON_TEST)
    }


def _default_report(config: CompareConfig, comparison: Comparison) -> Path:
    storage = absolute_place(config.storage).removeprefix("file://")
    folder = Path(storage) if "://" not in storage else Path.cwd()
    name = "".join(each if each.isalnum() or each in "-_." else "-" for each in comparison.title)
    return folder / "comparisons" / f"{name.strip('.') or 'runs'}.html"
