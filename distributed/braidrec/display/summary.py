"""The end of a run, as tables."""

import shlex
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from braidrec.display.text import duration, tool, value
from braidrec.tracking.naming import redact


def print_summary(
    *,
    run_name: str,
    best_epoch: int,
    epochs_run: int,
    metrics: Mapping[str, float],
    seconds: Mapping[str, float],
    places: Mapping[str, str],
    tracking_uri: str | None = None,
    console: Console | None = None,
) -> None:
    """Print what a run has come to and where its results are.

    Args:
        run_name: name of the run.
        best_epoch, epochs_run: which epoch the metrics are of, out of how many.
        metrics: "valid/recall@20", "test/recall@20", …: one row per metric, one column per split.
        seconds: by phase, over the whole run.
        places: what is where, such as {"run folder": "/…", "checkpoint": "/…", "per-user results": "/…"}.
        tracking_uri: None: not tracked; a database or SQLite: the command that opens it is printed; a server: its URI.
        console: where to print; None: standard output.
    """
    console = console or Console()
    console.print(_metric_table(f"{run_name}: epoch {best_epoch} of {epochs_run}", metrics))
    if seconds:
        console.print(_time_table(seconds))
    print_places(console, places, tracking_uri)


def print_places(console: Console, places: Mapping[str, str], tracking_uri: str | None) -> None:
    """What is where, and how MLflow's page is opened."""
    for name, place in places.items():
        _print_place(console, name, place)
    if tracking_uri is not None:
        _print_place(console, "MLflow", _how_to_open(tracking_uri))


def print_strands(metrics: Mapping[str, float], *, console: Console | None = None) -> None:
    """Print what the strands of an item count in the fusion, where they are weighed.

    Args:
        metrics: "attention/image/mean", "attention/image/q10", … beside any others.
        console: where to print; None: standard output.
    """
    parts = [name.split("/", 2) for name in metrics if name.startswith("attention/")]
    strands = [strand for _, strand, figure in parts if figure == "mean"]
    if not strands:
        return
    table = Table(title="what an item's strands count (attention, over the items)", title_justify="left")
    table.add_column("strand")
    for column in ("mean", "10 %", "90 %"):
        table.add_column(column, justify="right")
    for strand in strands:
        figures = (f"{metrics[f'attention/{strand}/{figure}']:.4f}" for figure in ("mean", "q10", "q90"))
        table.add_row(escape(strand), *figures)
    (console or Console()).print(table)


def print_recommendations(user_id: str, rows: Sequence[tuple[str, float]], *, console: Console | None = None) -> None:
    """Print one user's recommendations.

    Args:
        user_id: the data set's own id.
        rows: (item id, score), best first.
        console: where to print; None: standard output.
    """
    console = console or Console()
    table = Table(title=escape(f"recommendations for user {user_id}"), title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("item", overflow="fold")
    table.add_column("score", justify="right")
    for rank, (item_id, score) in enumerate(rows, start=1):
        table.add_row(str(rank), escape(item_id), value(score))
    console.print(table)


def _metric_table(title: str, metrics: Mapping[str, float]) -> Table:
    splits = list(dict.fromkeys(_split(name)[0] for name in metrics))
    table = Table(title=escape(title), title_justify="left")
    table.add_column("metric", no_wrap=True)
    for split in splits:
        table.add_column(escape(split), justify="right")
    for metric in dict.fromkeys(_split(name)[1] for name in metrics):
        names = [f"{split}/{metric}" if split else metric for split in splits]
        table.add_row(escape(metric), *(value(metrics[name]) if name in metrics else "" for name in names))
    return table


def _split(name: str) -> tuple[str, str]:
    split, separator, metric = name.partition("/")
    return (split, metric) if separator else ("", name)


def _time_table(seconds: Mapping[str, float]) -> Table:
    total = sum(seconds.values())
    table = Table(title="time", title_justify="left")
    table.add_column("phase")
    table.add_column("h:mm:ss", justify="right")
    table.add_column("share", justify="right")
    for phase, amount in sorted(seconds.items(), key=lambda entry: -entry[1]):
        table.add_row(escape(phase), duration(amount), f"{amount / total:.0%}" if total else "")
    return table


def _how_to_open(tracking_uri: str) -> str:
    if tracking_uri.startswith(("http:", "https:")):
        return redact(tracking_uri)
    return shlex.join([tool("mlflow"), "ui", "--backend-store-uri", redact(tracking_uri)])


def _print_place(console: Console, name: str, place: str) -> None:
    console.print(f"[bold]{escape(name)}[/]: {escape(place)}", soft_wrap=True, highlight=False)
