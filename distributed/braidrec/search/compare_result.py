"""What a comparison comes to, typed."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from braidrec.evaluation.significance import PairStatistics
from braidrec.search.importance import Importance, TrialScore

Verdict = Literal["real", "within the seeds", "chance", "tests disagree", "one seed", "equal"]


def slice_metric(name: str, metric: str) -> str:
    """What a slice shows: of groups of users the compared metric; of groups of items recall at the same k, which is
    all that they have, for other metrics are no sums over items."""
    _, separator, k = metric.partition("@")
    return f"recall@{k}" if name.startswith("item_") and separator else metric


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A value over the seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a run takes: seconds of training (evaluation not counted), trained parameters, peak memory in MiB.

    None where it was not logged.
    """

    seconds: float | None = None
    parameters: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a search, or a plain run."""

    label: str
    run_id: str
    state: Literal["finished", "stopped_early", "failed"]
    reason: str | None
    settings: Mapping[str, Any]
    """What was searched, or the keys in which plain runs differ; dotted keys."""
    fusion: tuple[str, str] | None
    """(timing, strategy); None where the model does not fuse by the configuration."""
    curve: Mapping[int, float]
    """epoch → validation value."""
    score: float | None
    """The best of them."""
    cost: Cost

    def as_score(self) -> TrialScore:
        return TrialScore(settings=self.settings, curve=self.curve, stopped_early=self.state == "stopped_early")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A candidate with the runs that were tested: one a seed.

    Attributes:
        label: what it is called.
        settings: as of its runs, which are equal in them.
        fusion: (timing, strategy), as in `Trial`.
        run_ids, seeds: of its runs.
        validation: the monitored metric, best epoch, on validation: what candidates are chosen by.
        test: the compared metric on test: the mean over the users, a value a seed.
        interval: bootstrap interval of the mean of `test` over the users.
        cost: mean over its runs.
        slices: {slice: {group: figure}} on test, as far as logged; which metric `slice_metric` says.
        without: {(modality, share): figure}: test with that share of the items' vectors taken away.
    """

    label: str
    settings: Mapping[str, Any]
    fusion: tuple[str, str] | None
    run_ids: tuple[str, ...]
    seeds: tuple[str, ...]
    validation: Figure
    test: Figure
    interval: tuple[float, float]
    cost: Cost
    slices: Mapping[str, Mapping[str, Figure]] = field(default_factory=dict)
    without: Mapping[tuple[str, float], Figure] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two contenders and whether their difference is real.

    Attributes:
        better, worse: by the mean of the compared metric; at a draw in the order of `contenders`.
        statistics: of `better` − `worse`, as columns.
        spread: √(s₁² + s₂²) over the seeds; None with one seed.
        verdict: "real" if both corrected tests find it and it exceeds the spread.
        sentence: the same in words.
    """

    better: str
    worse: str
    statistics: PairStatistics
    spread: float | None
    verdict: Verdict
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Tracked runs compared.

    Attributes:
        title: the sweep's or the experiment's name.
        metric, monitor: what is compared on test; what chooses on validation.
        higher_is_better: of `metric`; `monitor_is_high` of the monitor.
        confidence: of intervals; 1 − confidence is the level of the tests.
        dataset: (name, digest).
        num_users: whose values are compared; each had a value from every contender.
        contenders: best on validation first: the first is the winner. Empty where nothing was tested.
        pairs: all of them, contenders' order.
        trials: of the search, or the plain runs.
        importances: of the searched keys.
        conclusions: sentences, the most important first.
        notes: what was left out, and why.
        winner_yaml: configuration that trains the winner again; None where it is not known.
        best_on_test: metric → best figure of any trial of the sweep, chosen on test: no result. Empty where not asked
            for.
        report: the HTML file; None where none was asked for.
    """

    title: str
    metric: str
    monitor: str
    higher_is_better: bool
    monitor_is_high: bool
    confidence: float
    dataset: tuple[str, str]
    num_users: int
    contenders: Sequence[Contender]
    pairs: Sequence[Pair]
    trials: Sequence[Trial]
    importances: Sequence[Importance]
    conclusions: Sequence[str]
    notes: Sequence[str]
    winner_yaml: str | None
    best_on_test: Mapping[str, float] = field(default_factory=dict)
    report: str | None = None

    @property
    def winner(self) -> Contender | None:
        """Best on validation; the test split has no say."""
        return self.contenders[0] if self.contenders else None
