"""Tracked runs → trials and contenders: curves, costs, values of single users, slices, robustness."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from braidrec.config.base import ConfigError
from braidrec.config.model import SystemConfig
from braidrec.config.shape import tags_of
from braidrec.data.errors import DatasetError
from braidrec.data.storage import Location
from braidrec.search.compare_result import Cost, Figure, Trial, slice_metric
from braidrec.search.compare_runs import label_of, short_names, state_of
from braidrec.search.without import tests_without
from braidrec.tracking.reader import RunReader, TrackedRun, best_of

SYSTEMS = {str(tag) for system in get_args(SystemConfig) for tag in tags_of(system)}
"""Encoders that do their own fusing, whatever stands under model.fusion."""


@dataclass(frozen=True, kw_only=True)
class Users:
    """Values of the test split's users: ids ascending, and the metric of each."""

    ids: NDArray[np.int64]
    values: NDArray[np.float64]


class RunFacts:
    """What is read of runs, each once.

    Args:
        reader: of MLflow.
        monitor: validation metric; None: the last epoch is kept, and nothing chooses.
        monitor_is_high: its direction.
        metric: test metric.
    """

    def __init__(self, reader: RunReader, monitor: str, monitor_is_high: bool, metric: str) -> None:
        self._reader, self._monitor, self._high, self._metric = reader, monitor, monitor_is_high, metric
        self._trials: dict[str, Trial] = {}

    def trial(self, run: TrackedRun, label: str, settings: Mapping[str, Any]) -> Trial:
        """The course of a run and what it cost."""
        if run.run_id not in self._trials:
            curve = self._reader.history(run, f"valid/{self._monitor}")
            best = best_of(curve, self._high)
            self._trials[run.run_id] = Trial(
                label=label,
                run_id=run.run_id,
                state=state_of(run),
                reason=_reason_of(run),
                settings=settings,
                fusion=fusion_of(run),
                curve={epoch: value for epoch, value in curve.items() if np.isfinite(value)},
                score=None if best is None else best[1],
                cost=self._cost(run),
            )
        return self._trials[run.run_id]

    def users(self, run: TrackedRun) -> Users | None:
        """Test values; None where the run was not tested."""
        table = self._reader.per_user(run, [self._metric])
        if table is None:
            return None
        return Users(
            ids=table["user"].to_numpy().astype(np.int64), values=table[self._metric].to_numpy().astype(np.float64)
        )

    def slices(self, run: TrackedRun) -> dict[str, dict[str, float]]:
        """{slice: {group: value}} on test; empty where the run has none."""
        result = self._reader.json(run, "result.json") or {}
        found = {}
        for name, groups in result.get("slices", {}).items():
            metric = slice_metric(name, self._metric)
            found[name] = {group: float(values[metric]) for group, values in groups.items() if metric in values}
        return {name: groups for name, groups in found.items() if groups}

    def without(self, run: TrackedRun) -> dict[tuple[str, float], float]:
        """{(modality, share): value}: evaluations of the test split with one modality taken from some of its items.

        They are in the run's folder, where `jobs/evaluate.py --drop-modality` leaves them; {} where it is not reached.
        """
        folder = run.tags.get("braidrec.run_folder")
        if folder is None:
            return {}
        try:
            found = tests_without(Location.of(folder), run.params.get("evaluation.mask"))
        except (OSError, DatasetError, ValueError):
            return {}
        return {key: float(metrics[self._metric]) for key, metrics in found.items() if self._metric in metrics}

    def _cost(self, run: TrackedRun) -> Cost:
        seconds = self._reader.history(run, "train/seconds")
        memory = run.metrics.get("memory/gpu_peak_mb", run.metrics.get("memory/peak_mb"))
        return Cost(seconds=sum(seconds.values()) if seconds else None, parameters=_parameters(run), memory_mb=memory)


def label_all(runs: Sequence[TrackedRun], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each, all different."""
    names = short_names(key for each in settings for key in each)
    labels = []
    for run, own in zip(runs, settings, strict=True):
        number = run.tags.get("braidrec.candidate", run.tags.get("braidrec.trial"))
        labels.append(label_of(number, own, names, run.name))
    repeated = {label for label in labels if labels.count(label) > 1}
    return [run.name if label in repeated else label for run, label in zip(runs, labels, strict=True)]


def fusion_of(run: TrackedRun) -> tuple[str, str] | None:
    """(timing, strategy) such as ("late", "sum, attention"); None without modalities, and for systems of their own."""
    params = run.params
    if params.get("model.modalities.use", "[]") == "[]" or params.get("model.encoder.kind") in SYSTEMS:
        return None
    timing = params.get("model.fusion.timing", "early")
    of = ", of scores" if params.get("model.fusion.of") == "scores" else ""
    weighting = params.get("model.fusion.weighting", "none")
    combine = params.get("model.fusion.combine", "sum")
    return timing, f"{combine}{of}" if weighting == "none" else f"{combine}{of}, {weighting}"


def aligned(users: Sequence[Sequence[Users]]) -> tuple[NDArray[np.float64], int]:
    """[users, candidates], each value the mean over the candidate's runs; and how many users were left out.

    A user for whom the metric is undefined in any run (AUC without negatives) is left out everywhere.

    Raises:
        ConfigError: the runs were tested on different users.
    """
    first = users[0][0].ids
    for runs in users:
        for run in runs:
            if not np.array_equal(run.ids, first):
                raise ConfigError(
                    f"these runs were tested on different users ({len(first):,} and {len(run.ids):,}): compare runs on "
                    "one data set and with one evaluation.mask"
                )
    values = np.stack([np.mean([run.values for run in runs], axis=0) for runs in users], axis=1)
    known = np.isfinite(values).all(axis=1)
    return values[known], int((~known).sum())


def mean_cost(costs: Sequence[Cost]) -> Cost:
    """Each figure's mean over the runs that logged it."""

    def mean(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known else None

    return Cost(
        seconds=mean([cost.seconds for cost in costs]),
        parameters=mean([cost.parameters for cost in costs]),
        memory_mb=mean([cost.memory_mb for cost in costs]),
    )


def figures(found: Sequence[Mapping[Any, float]]) -> dict[Any, Figure]:
    """By key the values of all runs that have it."""
    keys = dict.fromkeys(key for each in found for key in each)
    return {key: Figure(values=tuple(each[key] for each in found if key in each)) for key in keys}


def _reason_of(run: TrackedRun) -> str | None:
    """Why it ended: as the search says, or else as the training itself says."""
    tags = ("braidrec.failure", "braidrec.stopped", "braidrec.end_reason")
    return next((run.tags[tag] for tag in tags if run.tags.get(tag)), None)


def _parameters(run: TrackedRun) -> float | None:
    told = run.tags.get("braidrec.choice.parameters", "").partition(" ")[0].replace(",", "")
    return float(told) if told.isdecimal() else None
