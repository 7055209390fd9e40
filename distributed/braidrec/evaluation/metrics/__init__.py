"""The metrics, by name. A further one is a file beside these and a line in `METRICS`."""

from collections.abc import Sequence

from braidrec.evaluation.metrics.auc import AUC
from braidrec.evaluation.metrics.base import CutoffMetric, ExposureMetric, Metric, RankedUsers, UserMetric
from braidrec.evaluation.metrics.coverage import Coverage
from braidrec.evaluation.metrics.gini import Gini
from braidrec.evaluation.metrics.hit_rate import HitRate
from braidrec.evaluation.metrics.mae import MAE
from braidrec.evaluation.metrics.map import MAP
from braidrec.evaluation.metrics.mrr import MRR
from braidrec.evaluation.metrics.ndcg import NDCG
from braidrec.evaluation.metrics.novelty import Novelty
from braidrec.evaluation.metrics.precision import Precision
from braidrec.evaluation.metrics.recall import Recall
from braidrec.evaluation.metrics.rmse import RMSE

CUTOFF_METRICS: dict[str, type[CutoffMetric] | type[ExposureMetric]] = {
    "recall": Recall,
    "ndcg": NDCG,
    "precision": Precision,
    "map": MAP,
    "mrr": MRR,
    "hit_rate": HitRate,
    "coverage": Coverage,
    "gini": Gini,
    "novelty": Novelty,
}
"""Of the first k recommendations."""
RANKING_METRICS: dict[str, type[AUC]] = {"auc": AUC}
"""Of the whole order of the candidates."""
RATING_METRICS: dict[str, type[RMSE] | type[MAE]] = {"rmse": RMSE, "mae": MAE}
"""Of predicted ratings."""
METRICS: dict[str, type[Metric]] = {**CUTOFF_METRICS, **RANKING_METRICS, **RATING_METRICS}


def build_metrics(
    at: Sequence[int], *, names: Sequence[str] = tuple(CUTOFF_METRICS), auc: bool = False, rating: bool = False
) -> list[Metric]:
    """The named cut-off metrics at every k, then AUC and the rating metrics where asked for.

    Raises:
        ValueError: an unknown name, or a k that is not positive or is given twice.
    """
    unknown = [name for name in names if name not in CUTOFF_METRICS]
    if unknown:
        raise ValueError(f"unknown metrics {unknown}; there are {sorted(CUTOFF_METRICS)}")
    if len(set(names)) < len(names):
        raise ValueError(f"metrics {list(names)}: each may be given once")
    if not at or min(at) < 1 or len(set(at)) < len(at):
        raise ValueError(f"at={list(at)}: wanted at least one cut-off k, each positive and given once")
    metrics: list[Metric] = [CUTOFF_METRICS[name](k) for name in names for k in at]
    if auc:
        metrics += [metric() for metric in RANKING_METRICS.values()]
    if rating:
        metrics += [metric() for metric in RATING_METRICS.values()]
    return metrics


def metric_names(at: Sequence[int], auc: bool = False, rating: bool = False) -> list[str]:
    """Keys of the results that an evaluation with these settings has, such as "recall@20"."""
    return [metric.key for metric in build_metrics(at, auc=auc, rating=rating)]


def higher_is_better(key: str) -> bool:
    """Whether a larger value of this result, such as "recall@20" or "rmse", is the better one.

    Raises:
        ValueError: no metric has that name.
    """
    name = key.partition("@")[0]
    if name not in METRICS:
        raise ValueError(f"unknown metric {key!r}; there are {sorted(METRICS)}")
    return METRICS[name].higher_is_better


__all__ = [
    "CUTOFF_METRICS",
    "METRICS",
    "Metric",
    "RankedUsers",
    "UserMetric",
    "build_metrics",
    "higher_is_better",
    "metric_names",
]
