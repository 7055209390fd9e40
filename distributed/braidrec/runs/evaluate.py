"""`braidrec.evaluate`: a finished run on any split."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from braidrec.config.load import ConfigError, validate
from braidrec.config.run import EvaluationConfig
from braidrec.config.runs import EvaluateConfig
from braidrec.data.storage import Location
from braidrec.evaluation.ann import AnnReport
from braidrec.evaluation.state import EvaluationResult
from braidrec.places import absolute_place
from braidrec.runs.finished import open_run
from braidrec.runs.search import search_of
from braidrec.training.context import SingleProcess
from braidrec.training.validation import SplitEvaluation


@dataclass(frozen=True, kw_only=True)
class EvaluateResult:
    """Metrics of a run on a split, and where the values of every user are.

    Attributes:
        drop_modality: by modality, the share of its items that were treated as if they did not have it.
        approximate: with `index=ann`: what the lists are worth against exact ones.
    """

    run: str
    split: str
    mask: str
    result: EvaluationResult
    metrics_file: str
    per_user_file: str
    drop_modality: dict[str, float] = field(default_factory=dict)
    drop_seed: int = 0
    approximate: AnnReport | None = None


def evaluate(
    run: str, *, progress: Callable[[int, int], None] = lambda done, total: None, **options: object
) -> EvaluateResult:
    """Rank all items for every user of a split.

    Args:
        run: name of a finished run in `storage`, or its folder.
        progress: called with (users done, users in all).
        options: the keys of `EvaluateConfig`: storage, split, mask, at, auc, slices, drop_modality, output, …
    Raises:
        ConfigError, DatasetError, CheckpointError: naming what is wrong and the mend.
    """
    return evaluate_config(validate(EvaluateConfig, {"run": run, **options}, "evaluate()"), progress)


def evaluate_config(config: EvaluateConfig, progress: Callable[[int, int], None]) -> EvaluateResult:
    """The same from a validated configuration, as jobs/evaluate.py calls it."""
    run = open_run(
        config.run, config.storage, config.data_path, drop_modality=config.drop_modality, drop_seed=config.drop_seed
    )
    if run.data.num_rows(config.split) == 0:
        raise ConfigError(f"split: the data set {run.data.path} has no {config.split} interactions")
    settings = EvaluationConfig(at=config.at, auc=config.auc, slices=config.slices, tile_mb=config.tile_mb)
    evaluation = SplitEvaluation(
        run.data,
        run.interactions,
        settings,
        config.split,
        mask=config.mask,
        rating=run.predicts_ratings,
        detail=True,
        present=run.present,
    )
    if config.index == "ann" and (config.auc or run.predicts_ratings):
        what = "auc=true" if config.auc else "a model of ratings, whose errors are metrics,"
        raise ConfigError(f"index=ann: {what} needs the scores of all items; set index=exact")
    search = search_of(config, run.ranker, run.folder.name, tile_mb=config.tile_mb)
    done = evaluation.run(run.ranker, SingleProcess(), progress, search=search)
    folder = Location.of(absolute_place(config.output)) if config.output else run.folder.location.child("evaluations")
    name = _name(config)
    per_user, metrics = folder.child(f"{name}-per-user.parquet"), folder.child(f"{name}.json")
    done.write_per_user(per_user)
    result = EvaluateResult(
        run=run.folder.uri,
        split=config.split,
        mask=config.mask,
        result=done.result,
        metrics_file=metrics.uri,
        per_user_file=per_user.uri,
        drop_modality=config.drop_modality,
        drop_seed=config.drop_seed,
        approximate=None if search is None else search.report,
    )
    metrics.write_bytes(_json(result))
    return result


def _name(config: EvaluateConfig) -> str:
    """Of the files: what was evaluated, so that evaluations of one run stand side by side."""
    parts = [config.split, "mask", config.mask.replace("+", "-")]
    parts += [f"drop-{name}-{rate:.10g}" for name, rate in sorted(config.drop_modality.items())]
    if config.drop_modality and config.drop_seed:
        parts.append(f"seed-{config.drop_seed}")
    if config.index == "ann":
        given = {"cells": config.n_list, "searched": config.n_probe}
        parts += ["ann", *(f"{what}-{number}" for what, number in given.items() if number is not None)]
    return "-".join(parts)


def _json(result: EvaluateResult) -> bytes:
    def clean(value: object) -> object:
        if isinstance(value, dict):
            return {key: clean(inner) for key, inner in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(clean(asdict(result)), indent=1).encode()
