"""The course of a training as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

History = Sequence[tuple[int, Mapping[str, float]]]
"""(epoch, metrics) in order."""


def write_curves(history: History, path: Path, *, title: str, best_epoch: int | None = None) -> None:
    """Write the training losses and the validation metrics over the epochs, interactive, readable without a network.

    Args:
        history: "train/loss" and its "train/…_term" go into the upper plot, "valid/…" into the lower one.
        path: HTML file to write; about 5 MB, nearly all of it Plotly itself, which is why both plots share one file.
        title: heading of the page.
        best_epoch: marked in both plots.
    """
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.08, subplot_titles=("training loss", "validation")
    )
    for name in _names(history):
        row = _row(name)
        if row is not None:
            figure.add_trace(_trace(history, name), row=row, col=1)
    if best_epoch is not None:
        figure.add_vline(x=best_epoch, line_dash="dot", annotation_text=f"best: epoch {best_epoch}")
    figure.update_layout(title=title, height=800, hovermode="x unified")
    figure.update_xaxes(title_text="epoch", row=2, col=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.write_html(path, include_plotlyjs=True, full_html=True)


def _row(name: str) -> int | None:
    if name == "train/loss" or (name.startswith("train/") and name.endswith("_term")):
        return 1
    return 2 if name.startswith("valid/") else None


def _names(history: History) -> list[str]:
    return sorted({name for _, metrics in history for name in metrics})


def _trace(history: History, name: str) -> Any:
    from plotly.graph_objects import Scatter

    points = [(epoch, metrics[name]) for epoch, metrics in history if name in metrics]
    epochs, values = zip(*points, strict=True)
    return Scatter(x=epochs, y=values, name=name.split("/", 1)[1], mode="lines+markers", marker_size=4)
