"""From tracked runs to what is compared: which runs count, which of them are one candidate with several seeds."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from braidrec.config.base import ConfigError
from braidrec.config.compare import CompareConfig
from braidrec.config.dotted import is_among
from braidrec.tracking.reader import RunReader, TrackedRun

IGNORED = (
    "name", "seed", "storage", "cache", "data.path", "data.planted", "data.delivery", "data.memory_limit_mb",
    "tracking", "workers", "evaluation.tile_mb", "evaluation.inference", "evaluation.auc", "evaluation.slices",
    "evaluation.test", "evaluation.watch_test",
)  # fmt: skip
"""Keys that make no other candidate: who computes, where things are, what else is measured."""

Progress = Callable[[int, int], None]
TrialState = Literal["finished", "stopped_early", "failed"]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The runs of a comparison.

    Attributes:
        title: of the sweep or the experiment.
        searched: trials of the sweep; of plain runs all of them.
        tested: runs that may have been tested: finals of the sweep, or the finished plain runs.
        parents: the sweeps' own runs, by their id.
        incomplete: candidates, as `candidate_of` names them, of which a run did not finish.
        notes: sentences about what was left out, and why.
    """

    title: str
    searched: Sequence[TrackedRun]
    tested: Sequence[TrackedRun]
    parents: Mapping[str, TrackedRun] = field(default_factory=dict)
    incomplete: frozenset[tuple[str | None, str]] = frozenset()
    notes: list[str] = field(default_factory=list)


def select(config: CompareConfig, reader: RunReader) -> Selection:
    """Find the runs that the configuration names.

    Raises:
        ConfigError: none are left, or they are of several data sets, sweeps or protocols.
    """
    runs = _named(config, reader)
    parents = {run.run_id: run for run in runs if run.kind == "sweep"}
    runs = [run for run in runs if run.kind in ("", "trial", "final")]
    runs = _of_dataset(runs, config.dataset)
    single = [run for run in runs if not run.kind]
    swept = [run for run in runs if run.kind]
    title = config.experiment or (f"{len(config.runs)} runs" if not parents else "")
    if swept and single and not config.runs:
        raise _choose(config, parents.values(), single)
    notes: list[str] = []
    incomplete = frozenset(candidate_of(run) for run in swept if run.kind == "final" and run.status != "FINISHED")
    if swept and not single:
        title = " and ".join(parent.name for parent in parents.values()) or title
        searched = [run for run in swept if run.kind == "trial"]
        tested = _finished([run for run in swept if run.kind == "final"], notes)
    else:
        searched, tested = list(runs), _finished([run for run in runs if run.kind != "trial"], notes)
    if not searched and not tested:
        raise ConfigError(f"nothing to compare: {config.experiment or 'these ids'} hold no trainings")
    _check_same([*searched, *tested], "evaluation.mask")
    _check_same([*searched, *tested], "evaluation.monitor")
    return Selection(title=title, searched=searched, tested=tested, parents=parents, incomplete=incomplete, notes=notes)


def candidate_of(run: TrackedRun) -> tuple[str | None, str]:
    """The sweep and the number of the trial that a finalist's run repeats."""
    return run.sweep, run.tags.get("braidrec.candidate", "")


def _named(config: CompareConfig, reader: RunReader) -> list[TrackedRun]:
    if config.experiment is None:
        found = reader.runs(config.runs)
        children = [child for run in found if run.kind == "sweep" for child in reader.children(run)]
        return list({run.run_id: run for run in [*found, *children]}.values())
    runs = reader.experiment(config.experiment)
    if not runs:
        raise ConfigError(
            f"experiment: {config.experiment!r} has no runs yet: train with tracking.experiment set to it"
        )
    sweeps = [run for run in runs if run.kind == "sweep"]
    if config.sweep == "none":
        return [run for run in runs if not run.kind]
    if config.sweep is not None:
        wanted = [run for run in sweeps if config.sweep in (run.name, run.run_id)]
        if not wanted:
            names = sorted(run.name for run in sweeps)
            raise ConfigError(f"sweep: {config.experiment!r} has no sweep {config.sweep!r}; it has {names or 'none'}")
        return [run for run in runs if run.sweep == wanted[-1].run_id]
    if len(sweeps) > 1:
        raise _choose(config, sweeps, [run for run in runs if not run.kind])
    return runs


def _choose(config: CompareConfig, sweeps: Iterable[TrackedRun], single: Sequence[TrackedRun]) -> ConfigError:
    names = sorted(run.name for run in sweeps)
    return ConfigError(
        f"experiment: {config.experiment!r} holds the sweeps {names} and {len(single)} runs of no sweep: choose with "
        f"--set sweep={names[0] if names else 'NAME'}, or --set sweep=none for the latter"
    )


def _of_dataset(runs: list[TrackedRun], wanted: str | None) -> list[TrackedRun]:
    def matches(run: TrackedRun, text: str) -> bool:
        return run.dataset.startswith(text) or data_name(run) == text

    kept = runs if wanted is None else [run for run in runs if matches(run, wanted)]
    found = Counter((data_name(run), run.dataset[:12]) for run in (kept or runs) if run.dataset)
    listed = ", ".join(f"{name} ({digest}…): {count} runs" for (name, digest), count in sorted(found.items()))
    if runs and not kept:
        raise ConfigError(f"dataset: no run is on {wanted!r}; there are {listed}")
    if len({run.dataset for run in kept if run.dataset}) > 1:
        raise ConfigError(
            f"dataset: these runs are on different data sets, whose figures do not compare: {listed}; choose one with "
            "--set dataset=NAME, or the beginning of its digest"
        )
    return kept


def data_name(run: TrackedRun) -> str:
    """Of the folder of the data set that it was trained on."""
    return run.params.get("data.path", "").rstrip("/").rpartition("/")[2]


def _finished(runs: Sequence[TrackedRun], notes: list[str]) -> list[TrackedRun]:
    others = Counter(run.status.lower() for run in runs if run.status != "FINISHED")
    if others:
        shown = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
        notes.append(f"Left out, for they have no result: {shown}.")
    return [run for run in runs if run.status == "FINISHED"]


def _check_same(runs: Sequence[TrackedRun], key: str) -> None:
    found = Counter(run.params[key] for run in runs if key in run.params)
    if len(found) > 1:
        raise ConfigError(
            f"{key} differs between these runs ({dict(found)}), so that their figures do not compare: name the ids of "
            "runs that agree in it"
        )


def group_by_candidate(runs: Sequence[TrackedRun], notes: list[str]) -> list[list[TrackedRun]]:
    """Runs that differ in their seed only, by seed; of several with one seed the newest."""
    groups: dict[tuple[Any, ...], dict[str, TrackedRun]] = {}
    for run in sorted(runs, key=lambda each: each.started):
        number = run.tags.get("braidrec.candidate")
        key = (run.sweep, number) if number is not None else tuple(sorted(_own_params(run).items()))
        groups.setdefault(key, {})[run.params.get("seed", run.run_id)] = run
    repeated = len(runs) - sum(len(group) for group in groups.values())
    if repeated:
        notes.append(
            f"Left out: {repeated} runs with the settings and the seed of a newer one, which say nothing more."
        )
    return [[group[seed] for seed in sorted(group)] for group in groups.values()]


def settings_of(runs: Sequence[TrackedRun]) -> list[dict[str, Any]]:
    """By run what was searched in it; of plain runs, the keys in which they differ. Values as JSON has them."""
    if runs and all(run.kind for run in runs):
        return [
            {key.removeprefix("search."): parsed(text) for key, text in run.tags.items() if key.startswith("search.")}
            for run in runs
        ]
    own = [_own_params(run) for run in runs]
    keys = sorted({key for params in own for key in params})
    varying = [key for key in keys if len({params.get(key) for params in own}) > 1]
    return [{key: parsed(params[key]) for key in varying if key in params} for params in own]


def _own_params(run: TrackedRun) -> Mapping[str, str]:
    return {key: value for key, value in run.params.items() if not is_among(key, IGNORED)}


def parsed(text: str) -> Any:
    """The value that a parameter or a tag stands for: numbers, booleans, null and lists; all else is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def state_of(run: TrackedRun) -> TrialState:
    """How a trial ended; a plain run that has not finished counts as failed."""
    told = run.tags.get("braidrec.trial_state")
    if told in ("finished", "stopped_early", "failed"):
        return told  # type: ignore[return-value]
    return "finished" if run.status == "FINISHED" else "failed"


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Dotted key → its last part, with those before it where that says too little or another key has it too."""
    wanted = sorted(set(keys))
    lengths = {key: 2 if key.rpartition(".")[2] in ("kind", "rate", "layers") else 1 for key in wanted}

    def name(key: str) -> str:
        return ".".join(key.split(".")[-lengths[key] :])

    while True:
        counts = Counter(name(key) for key in wanted)
        longer = [key for key in wanted if counts[name(key)] > 1 and lengths[key] < len(key.split("."))]
        if not longer:
            return {key: name(key) for key in wanted}
        for key in longer:
            lengths[key] += 1


def label_of(number: str | None, settings: Mapping[str, Any], names: Mapping[str, str], fallback: str) -> str:
    """What a candidate is called: its trial, or what is particular about it."""
    if number is not None:
        return f"trial {number}"
    text = " ".join(f"{names[key]}={shown(value)}" for key, value in settings.items())
    return text if 0 < len(text) <= 60 else fallback


def shown(value: Any) -> str:
    """A setting as it stands in tables."""
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
