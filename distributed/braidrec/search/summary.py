"""The end of a sweep, as tables."""

import shlex

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from braidrec.display.summary import print_places
from braidrec.display.text import tool, value, with_spread
from braidrec.search.runs import shown
from braidrec.search.sweep import SweepResult
from braidrec.search.winner import Candidate

METRICS_SHOWN = 4


def print_sweep_result(result: SweepResult, console: Console | None = None) -> None:
    """What was tried, the finalists, the winner, and where everything is."""
    console = console or Console()
    console.print(_counts(result), highlight=False)
    console.print(_candidates(result))
    for place, candidate in enumerate(result.candidates):
        title = f"[bold]winner[/], trial {candidate.number}" if place == 0 else f"trial {candidate.number}"
        console.print(f"{title}: {escape(shown(candidate.overrides))}", highlight=False, soft_wrap=True)
    for metric, figure in result.best_on_test.items():
        console.print(
            f"best {escape(metric)} of any trial, [bold]chosen on test[/] (only for comparison with tables that were "
            f"made so): {value(figure)}",
            highlight=False,
        )
    places = {"sweep folder": result.folder, "winner": result.winner_file}
    if result.report is not None:
        places["report"] = result.report
    print_places(console, places, result.tracking_uri)
    command = shlex.join([tool("python"), "jobs/train.py", "--config", result.winner_file])
    console.print(f"train the winner again:  {escape(command)}", soft_wrap=True, highlight=False)


def _counts(result: SweepResult) -> str:
    states = [record.state for record in result.trials]
    counts = ", ".join(
        f"{states.count(state)} {state.replace('_', ' ')}"
        for state in ("finished", "stopped_early", "failed")
        if states.count(state)
    )
    epochs = sum(record.epochs for record in result.trials)
    return f"{len(states)} trials: {counts}; {epochs:,} epochs. Chosen by {result.metric} on the validation split."


def _candidates(result: SweepResult) -> Table:
    tested = result.candidates[0].tests
    title = "finalists: mean ± standard deviation over seeds" if tested else "best trials"
    table = Table(title=f"{escape(result.name)}, {title}", title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column(f"valid {escape(result.metric)}", justify="right")
    names = list(tested)[:METRICS_SHOWN]
    for name in names:
        table.add_column(escape(name.replace("/", " ")), justify="right")
    for candidate in result.candidates:
        table.add_row(
            str(candidate.number),
            with_spread(candidate.score, candidate.spread),
            *(_tested(candidate, name) for name in names),
        )
    return table


def _tested(candidate: Candidate, name: str) -> str:
    return with_spread(*candidate.tests[name]) if name in candidate.tests else ""
