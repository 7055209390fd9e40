"""Figures of what came out: importance, quality against cost, slices, modalities taken away."""

from collections.abc import Callable
from typing import Any

from braidrec.search.compare_result import Comparison, Cost, Figure, slice_metric
from braidrec.search.compare_runs import short_names
from braidrec.search.importance import Importance
from braidrec.search.pareto import pareto_front
from braidrec.search.report.figures import COLOURS, layout

COSTS: dict[str, Callable[[Cost], float | None]] = {
    "seconds of training": lambda cost: cost.seconds,
    "trained parameters": lambda cost: cost.parameters,
    "peak memory, MiB": lambda cost: cost.memory_mb,
}
WARMTH = "item_warmth"


def importance_bars(importance: Importance) -> Any:
    """A bar a key."""
    from plotly.graph_objects import Bar
    from plotly.graph_objects import Figure as PlotlyFigure

    names = short_names(importance.shares)
    keys = list(importance.shares)[::-1]
    bars = Bar(
        x=[importance.shares[key] for key in keys], y=[names[key] for key in keys], orientation="h", customdata=keys,
        hovertemplate="%{customdata}: %{x:.1%}<extra></extra>", marker_color=COLOURS[0],
    )  # fmt: skip
    figure = layout(PlotlyFigure(bars), 120 + 32 * len(keys))
    figure.update_xaxes(title_text="share of the variance explained", tickformat=".0%", range=[0, 1])
    return figure


def pareto_plots(comparison: Comparison) -> dict[str, Any]:
    """By kind of cost: quality against it, the front as a line; kinds that fewer than two runs logged are left out.

    Tested candidates by their mean on test, where there are any; else trials by their validation score.
    """
    if len(comparison.contenders) > 1:
        points = [(each.label, each.test.mean, each.cost) for each in comparison.contenders]
        name, high = f"test {comparison.metric}", comparison.higher_is_better
    else:
        ended = [trial for trial in comparison.trials if trial.state == "finished" and trial.score is not None]
        points = [(trial.label, float(trial.score or 0.0), trial.cost) for trial in ended]
        name, high = f"validation {comparison.monitor}", comparison.monitor_is_high
    found = {}
    for title, read in COSTS.items():
        known = [(label, value, cost) for label, value, each in points if (cost := read(each)) is not None]
        if len(known) > 1:
            found[title] = _pareto(known, title, name, high)
    return found


def _pareto(points: list[tuple[str, float, float]], cost: str, quality: str, high: bool) -> Any:
    from plotly.graph_objects import Figure as PlotlyFigure
    from plotly.graph_objects import Scatter

    labels, values, costs = zip(*points, strict=True)
    front = pareto_front([value if high else -value for value in values], costs)
    on = sorted((each for each, kept in zip(points, front, strict=True) if kept), key=lambda each: (each[2], each[1]))
    figure = PlotlyFigure(
        [
            Scatter(
                x=costs, y=values, text=labels, mode="markers", name="dominated",
                marker={"color": "#8895a3", "size": 8},
                hovertemplate="%{text}<br>%{x:,.4g}, %{y:.4f}<extra></extra>",
            ),
            Scatter(
                x=[each[2] for each in on], y=[each[1] for each in on], text=[each[0] for each in on],
                mode="lines+markers+text" if len(on) <= 6 else "lines+markers", name="front", cliponaxis=False,
                textposition=["bottom left" if each[2] > max(costs) / 2 else "bottom right" for each in on],
                line={"shape": "hv", "color": COLOURS[1]}, marker={"size": 10},
                hovertemplate="%{text}<br>%{x:,.4g}, %{y:.4f}<extra></extra>",
            ),
        ]
    )  # fmt: skip
    layout(figure, 380)
    figure.update_xaxes(title_text=cost, rangemode="tozero")
    figure.update_yaxes(title_text=quality)
    return figure


def slice_bars(comparison: Comparison, name: str) -> Any | None:
    """A group of bars a group of the slice, a bar a contender, with the spread between its seeds."""
    chosen = [each for each in comparison.contenders[: len(COLOURS)] if name in each.slices]
    groups = list(dict.fromkeys(group for each in chosen for group in each.slices[name]))
    if not groups:
        return None
    from plotly.graph_objects import Bar
    from plotly.graph_objects import Figure as PlotlyFigure

    bars = [
        Bar(
            name=each.label, x=groups, y=[_mean(each.slices[name].get(group)) for group in groups],
            error_y={"type": "data", "array": [_spread(each.slices[name].get(group)) for group in groups]},
            hovertemplate=f"{each.label}<br>%{{x}}: %{{y:.4f}}<extra></extra>",
        )
        for each in chosen
    ]  # fmt: skip
    figure = layout(PlotlyFigure(bars), 380, barmode="group")
    figure.update_xaxes(type="category")
    figure.update_yaxes(title_text=f"test {slice_metric(name, comparison.metric)}")
    return figure


def robustness_lines(comparison: Comparison, modality: str) -> Any | None:
    """Test metric against the share of items that were made to lose a modality, from none upwards."""
    from plotly.graph_objects import Figure as PlotlyFigure
    from plotly.graph_objects import Scatter

    figure = PlotlyFigure()
    for each in comparison.contenders[: len(COLOURS)]:
        points = {share: figure_ for (name, share), figure_ in each.without.items() if name == modality and share > 0}
        if points:
            ordered = {0.0: each.test} | dict(sorted(points.items()))
            figure.add_trace(
                Scatter(
                    x=list(ordered), y=[value.mean for value in ordered.values()], name=each.label,
                    mode="lines+markers",
                    error_y={"type": "data", "array": [value.spread or 0.0 for value in ordered.values()]},
                    hovertemplate=f"{each.label}<br>without %{{x:.0%}}: %{{y:.4f}}<extra></extra>",
                )
            )  # fmt: skip
    if not figure.data:
        return None
    layout(figure, 380)
    figure.update_xaxes(title_text=f"share of the items with {modality} that lost it", tickformat=".0%")
    figure.update_yaxes(title_text=f"test {comparison.metric}")
    return figure


def _mean(figure: Figure | None) -> float | None:
    return None if figure is None else figure.mean


def _spread(figure: Figure | None) -> float:
    return 0.0 if figure is None else figure.spread or 0.0
