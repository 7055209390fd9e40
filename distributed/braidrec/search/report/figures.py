"""Figures of the search: fusion points, parallel coordinates, learning curves."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from braidrec.search.compare_result import Comparison, Contender, Trial
from braidrec.search.compare_runs import short_names, shown
from braidrec.search.importance import is_number

COLOURS = ("#3a7bd5", "#e07b39", "#2a9d6f", "#b8559a", "#8a6fd1", "#c2a023", "#4aa3b5", "#d04f5a", "#7d8b99", "#6b8e23")
SCALE = "Viridis"
MAX_LINES = 300
"""Most trials in one plot; of more, the best and an even choice among the rest."""


Marks = Sequence[tuple[float, str]]
"""(height, text) along an axis."""


def layout(figure: Any, height: int, **changes: Any) -> Any:
    """What all figures have in common; colours of text and grid are the page's."""
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 60, "r": 20, "t": 30, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13},
        colorway=COLOURS,
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        xaxis={"automargin": True},
        yaxis={"automargin": True},
        **changes,
    )
    return figure


def heat_map_of_validation(comparison: Comparison) -> Any | None:
    """The best trial of each fusion point, with the middle half of the trials there; None for fewer than two points."""
    import numpy as np

    points: dict[tuple[str, str], list[float]] = {}
    for trial in comparison.trials:
        if trial.fusion is not None and trial.score is not None and trial.state != "failed":
            points.setdefault(trial.fusion, []).append(trial.score)
    best = max if comparison.monitor_is_high else min

    def cell(scores: list[float]) -> tuple[float, str]:
        low, high = np.quantile(scores, [0.25, 0.75])
        span = f"half in [{low:.4f}, {high:.4f}]" if len(scores) > 1 else "one trial"
        return best(scores), f"{best(scores):.4f}<br>{span}<br>{len(scores)} trial{'s' * (len(scores) > 1)}"

    return _heat_map({point: cell(scores) for point, scores in points.items()}, comparison.monitor)


def heat_map_of_test(comparison: Comparison) -> Any | None:
    """The contender of each fusion point that is best on validation, with its interval; None for fewer than two."""
    chosen: dict[tuple[str, str], Contender] = {}
    for contender in comparison.contenders:  # best on validation first
        if contender.fusion is not None:
            chosen.setdefault(contender.fusion, contender)
    cells = {}
    for point, contender in chosen.items():
        low, high = contender.interval
        seeds = f"{len(contender.seeds)} seed{'s' * (len(contender.seeds) > 1)}"
        cells[point] = contender.test.mean, f"{contender.test.mean:.4f}<br>[{low:.4f}, {high:.4f}]<br>{seeds}"
    return _heat_map(cells, comparison.metric)


def _heat_map(cells: Mapping[tuple[str, str], tuple[float, str]], title: str) -> Any | None:
    if len(cells) < 2:
        return None
    from plotly.graph_objects import Figure, Heatmap

    timings, strategies = (sorted({point[side] for point in cells}) for side in (0, 1))
    values = [[cells.get((timing, strategy), (None, ""))[0] for strategy in strategies] for timing in timings]
    texts = [[cells.get((timing, strategy), (None, "not tried"))[1] for strategy in strategies] for timing in timings]
    heat = Heatmap(
        x=strategies, y=timings, z=values, text=texts, texttemplate="%{text}", colorscale=SCALE, xgap=3, ygap=3,
        hovertemplate="%{y}, %{x}<br>%{text}<extra></extra>", colorbar={"title": {"text": title}},
    )  # fmt: skip
    return layout(Figure(heat), 150 + 95 * len(timings))


def parallel_coordinates(comparison: Comparison) -> Any | None:
    """A line a trial, an axis a searched key, the colour being the score; None without keys or with one trial.

    Drawn as lines of a plain plot rather than by Plotly's own kind, which needs WebGL and does not print.
    """
    from plotly.graph_objects import Figure, Scatter

    trials = _chosen([trial for trial in comparison.trials if trial.score is not None and trial.state != "failed"],
                     comparison.monitor_is_high)  # fmt: skip
    keys = sorted({key for trial in trials for key in trial.settings})
    if len(trials) < 2 or not keys:
        return None
    names = short_names(keys)
    axes = {key: _axis([trial.settings[key] for trial in trials if key in trial.settings]) for key in keys}
    scores = [trial.score or 0.0 for trial in trials]
    low, high = min(scores), max(scores)
    figure = Figure()
    for trial, score in reversed(list(zip(trials, scores, strict=True))):  # the best on top
        height = (score - low) / (high - low) if high > low else 0.5
        ys = [axes[key][0](trial.settings[key]) if key in trial.settings else None for key in keys]
        told = "<br>".join(f"{names[key]} = {shown(value)}" for key, value in trial.settings.items())
        figure.add_trace(
            Scatter(
                x=[*range(len(keys)), len(keys)], y=[*ys, height], mode="lines+markers", name=trial.label,
                line={"color": _colour(height), "width": 1.6}, marker={"size": 5}, opacity=0.75, showlegend=False,
                hovertemplate=f"{trial.label}: {score:.4f}<br>{told}<extra></extra>",
            )
        )  # fmt: skip
    score_ticks = [(step / 4, f"{low + step / 4 * (high - low):.4f}") for step in range(5)]
    marks = [*(ticks for _, ticks in axes.values()), score_ticks if high > low else [(0.5, f"{low:.4f}")]]
    _draw_axes(figure, marks, [*(names[key] for key in keys), comparison.monitor])
    return figure


def _draw_axes(figure: Any, axes: Sequence[Marks], titles: Sequence[str]) -> None:
    layout(figure, 460, hovermode="closest")
    for place, marks in enumerate(axes):
        figure.add_shape(
            type="line", x0=place, x1=place, y0=0, y1=1, line={"width": 1, "color": "#8895a3"}, layer="below"
        )
        for height, text in marks:
            figure.add_annotation(
                x=place, y=height, text=text, showarrow=False, xanchor="left", xshift=7, font={"size": 11}
            )
    figure.update_xaxes(tickvals=list(range(len(titles))), ticktext=list(titles), showgrid=False, zeroline=False,
                        range=[-0.15, len(titles) - 1 + 0.55])  # fmt: skip
    figure.update_yaxes(visible=False, range=[-0.06, 1.06])


def _axis(values: Sequence[Any]) -> tuple[Callable[[Any], float], Marks]:
    """value → height in [0, 1], and the marks of the axis; numbers to scale, all else evenly in order."""
    if all(is_number(value) for value in values) and min(values) < max(values):
        return _scale(values)
    names = sorted({shown(value) for value in values})
    step = 1 / max(1, len(names) - 1)
    heights = {name: step * index if len(names) > 1 else 0.5 for index, name in enumerate(names)}
    return (lambda value: heights[shown(value)]), [(height, name) for name, height in heights.items()]


def _scale(values: Sequence[Any]) -> tuple[Callable[[Any], float], Marks]:
    """Logarithmic where the values span two orders of magnitude; marked at the values themselves if they are few."""
    low, high = float(min(values)), float(max(values))
    log = low > 0 and high / low >= 100

    def height(value: Any) -> float:
        return math.log(value / low) / math.log(high / low) if log else (float(value) - low) / (high - low)

    distinct = sorted(set(values))
    between = [low * (high / low) ** (step / 4) if log else low + (high - low) * step / 4 for step in range(5)]
    return height, [(height(mark), f"{mark:.3g}") for mark in (distinct if len(distinct) <= 6 else between)]


def learning_curves(comparison: Comparison) -> Any | None:
    """Validation by epoch; the ten best trials in colour, those that were stopped ending in a cross."""
    from plotly.graph_objects import Figure, Scatter

    trials = [trial for trial in comparison.trials if trial.curve]
    if not trials:
        return None
    trials = _chosen(trials, comparison.monitor_is_high)
    figure = Figure()
    for rank, trial in reversed(list(enumerate(trials))):
        stopped = trial.state != "finished"
        figure.add_trace(
            Scatter(
                x=list(trial.curve), y=list(trial.curve.values()), name=trial.label, mode="lines+markers",
                line={"color": COLOURS[rank] if rank < len(COLOURS) else "rgba(125,139,153,.45)",
                      "width": 2 if rank < len(COLOURS) else 1},
                marker={"size": [4] * (len(trial.curve) - 1) + [9 if stopped else 4],
                        "symbol": ["circle"] * (len(trial.curve) - 1) + ["x" if stopped else "circle"]},
                showlegend=rank < len(COLOURS), legendrank=rank,
                hovertemplate=f"{trial.label}: %{{y:.4f}} after epoch %{{x}}<extra></extra>",
            )
        )  # fmt: skip
    layout(figure, 440, hovermode="closest")
    figure.update_xaxes(title_text="epoch")
    figure.update_yaxes(title_text=f"validation {comparison.monitor}")
    return figure


def _chosen(trials: Sequence[Trial], high: bool) -> list[Trial]:
    """Best first, at most `MAX_LINES`."""
    sign = -1 if high else 1
    ranked = sorted(trials, key=lambda trial: sign * (trial.score if trial.score is not None else -sign * 1e300))
    if len(ranked) <= MAX_LINES:
        return ranked
    step = (len(ranked) - MAX_LINES // 2) / (MAX_LINES - MAX_LINES // 2)
    rest = ranked[MAX_LINES // 2 :]
    return ranked[: MAX_LINES // 2] + [rest[int(index * step)] for index in range(MAX_LINES - MAX_LINES // 2)]


def _colour(height: float) -> str:
    from plotly.colors import sample_colorscale

    return str(sample_colorscale(SCALE, [height])[0])
