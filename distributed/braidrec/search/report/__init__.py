"""The report of a comparison: one HTML file that needs nothing beside it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from braidrec.config.compare import CompareConfig
from braidrec.search.compare_result import Comparison
from braidrec.search.report.page import render
from braidrec.search.report.sections import head, sections

__all__ = ["write_comparison", "write_report"]


def write_report(
    sweep: str,
    tracking_uri: str,
    target: Path,
    *,
    metric: str | None = None,
    winner_yaml: str | None = None,
    best_on_test: Mapping[str, float] | None = None,
) -> Path:
    """Read a sweep back from MLflow and write its report; what is not logged (yet) is said to be absent.

    Args:
        sweep: MLflow's id of the sweep's own run, whose children are read; or the name of an experiment.
        tracking_uri: where it is tracked.
        target: the HTML file; `<stem>.winner.yaml` is written beside it.
        metric: test metric of single users; None: what the runs monitored.
        winner_yaml: configuration that trains the winner again; None: as MLflow has it.
        best_on_test: metric → best figure of any trial, chosen on test; None: as MLflow has it.
    Returns:
        `target`.
    Raises:
        ConfigError: no such sweep, or one without trainings.
    """
    from braidrec.search.compare import read_comparison
    from braidrec.tracking.reader import RunReader

    is_run = RunReader(tracking_uri).has_run(sweep)
    which = {"runs": (sweep,)} if is_run else {"experiment": sweep}
    comparison = read_comparison(CompareConfig(**which, tracking_uri=tracking_uri, metric=metric))
    told: dict[str, Any] = {"winner_yaml": winner_yaml, "best_on_test": best_on_test}
    known = {name: value for name, value in told.items() if value is not None}
    return write_comparison(replace(comparison, **known), target)


def write_comparison(comparison: Comparison, target: Path) -> Path:
    """Write the page, and beside it the configuration that trains the winner again; about 5 MB, nearly all Plotly."""
    target.parent.mkdir(parents=True, exist_ok=True)
    winner_file = None
    if comparison.winner_yaml is not None:
        winner_file = target.with_suffix(".winner.yaml")
        winner_file.write_text(comparison.winner_yaml, encoding="utf-8")
    page = render(f"Comparison: {comparison.title}", head(comparison), sections(comparison, winner_file))
    target.write_text(page, encoding="utf-8")
    return target
