"""What jobs/compare.py prints."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from braidrec.display.text import with_spread
from braidrec.search.compare_result import Comparison, Figure
from braidrec.search.compare_words import described


def print_comparison(comparison: Comparison, most_pairs: int, console: Console | None = None) -> None:
    """Candidates, their pairs, what mattered, and the conclusions last, where the eye is.

    Args:
        most_pairs: no more than these are printed, those of the winner first.
    """
    console = console or Console()
    if comparison.contenders:
        console.print(_candidates(comparison))
    if comparison.pairs:
        console.print(_pairs(comparison, most_pairs))
        if len(comparison.pairs) > most_pairs:
            console.print(f"{len(comparison.pairs) - most_pairs} more pairs are in the report", highlight=False)
    for importance in comparison.importances:
        reached = "whole trainings" if importance.epochs is None else f"the best within {importance.epochs} epochs"
        shares = ", ".join(f"{key} {share:.0%}" for key, share in importance.shares.items())
        console.print(f"mattered, {escape(importance.branch)} ({importance.trials}, {reached}): {escape(shares)}")
    for sentence in [*comparison.notes, *comparison.conclusions]:
        console.print(escape(sentence), highlight=False)
    if comparison.report is not None:
        console.print(f"[bold]report[/]: {escape(comparison.report)}", soft_wrap=True, highlight=False)


def _candidates(comparison: Comparison) -> Table:
    title = f"{comparison.title}: best on validation first; {comparison.num_users:,} users"
    table = Table(title=escape(title), title_justify="left")
    table.add_column("", justify="right")
    table.add_column("candidate", overflow="fold")
    table.add_column("seeds", justify="right")
    for column in (f"valid {comparison.monitor}", f"test {comparison.metric}", f"{comparison.confidence:.0%}"):
        table.add_column(column, justify="right")
    for number, each in enumerate(comparison.contenders, start=1):
        low, high = each.interval
        figures = _figure(each.validation), _figure(each.test), f"{low:.4f}\n– {high:.4f}"
        table.add_row(str(number), escape(described(each)), str(len(each.seeds)), *figures)
    return table


def _pairs(comparison: Comparison, most: int) -> Table:
    numbers = {each.label: str(number) for number, each in enumerate(comparison.contenders, start=1)}
    ordered = sorted(comparison.pairs, key=lambda pair: "1" not in (numbers[pair.better], numbers[pair.worse]))
    table = Table(title="pairs, p after Holm’s correction")
    table.title_justify = "left"
    table.add_column("better")
    for column in ("difference", "Wilcoxon p", "t test p", "seed spread"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for pair in ordered[:most]:
        table.add_row(
            f"{numbers[pair.better]} than {numbers[pair.worse]}",
            f"{abs(pair.statistics.difference):.4f}",
            f"{pair.statistics.wilcoxon_holm:.2g}",
            f"{pair.statistics.t_holm:.2g}",
            "–" if pair.spread is None else f"{pair.spread:.4f}",
            pair.verdict,
        )
    return table


def _figure(figure: Figure) -> str:
    return with_spread(figure.mean, figure.spread, "\n")
