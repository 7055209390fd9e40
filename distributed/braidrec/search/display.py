"""The course of a sweep for a person: one live line, and a plain line for every training that ends."""

import statistics
import time
from collections.abc import Callable

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from braidrec.display.text import duration, value
from braidrec.search.records import TrialRecord
from braidrec.search.runs import shown

MARKS = {"finished": "[green]finished[/]", "stopped_early": "[yellow]stopped early[/]", "failed": "[red]failed[/]"}


class SweepDisplay:
    """Shows how many trainings are in which state, the best so far and the time that is left.

    Args:
        metric: the objective.
        sign: 1 where it should be high.
        console: where to print; None: standard output.
        clock: seconds that only grow.
    """

    def __init__(
        self, metric: str, sign: int, *, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metric, self._sign, self._clock = metric, sign, clock
        self._console = console or Console()
        self._live: Live | None = None
        self._running: dict[str, TrialRecord] = {}
        self._ended: list[TrialRecord] = []
        self._title, self._total, self._concurrency = "", 0, 1
        self._new_ends: list[float] = []

    def phase(self, title: str, known: list[TrialRecord], total: int | None, concurrency: int) -> None:
        """A round of trainings begins; `known` have ended in an earlier session."""
        self.close()
        self._title, self._total, self._concurrency = title, total or 0, concurrency
        self._running, self._ended, self._new_ends = {}, list(known), []
        earlier = f", {len(known)} known from before" if known else ""
        self._console.print(f"{title}: {total or 'any number of'} trainings, {concurrency} at a time{earlier}")
        if self._console.is_interactive:
            self._live = Live(self._line(), console=self._console, transient=True, auto_refresh=False)
            self._live.start()

    def began(self, record: TrialRecord) -> None:
        self._running[record.name] = record
        self._refresh()

    def saw(self, record: TrialRecord) -> None:
        self._refresh()

    def ended(self, record: TrialRecord) -> None:
        self._running.pop(record.name, None)
        self._ended.append(record)
        self._new_ends.append(record.seconds)
        place = f"{len(self._ended)}{f'/{self._total}' if self._total else ''}"
        score = "no score" if record.score is None else f"{self._metric} {value(record.score)}"
        reason = f" ({escape(record.reason)})" if record.state == "failed" and record.reason else ""
        self._console.print(
            f"{place} {record.name} {MARKS[record.state]}{reason}: "
            f"{score}, {record.epochs} epochs, {duration(record.seconds)}; {escape(shown(record.overrides))}",
            highlight=False,
            soft_wrap=True,
        )
        self._refresh()

    def inform(self, sentence: str) -> None:
        """Something a person should know."""
        self._console.print(escape(sentence), highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Take the live line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._line(), refresh=True)

    def _line(self) -> Text:
        counts = {state: sum(record.state == state for record in self._ended) for state in MARKS}
        states = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in counts.items() if count)
        running = ", ".join(f"{each.name} epoch {each.epochs}" for each in list(self._running.values())[:4])
        parts = [
            f"{self._title} {len(self._ended)}{f'/{self._total}' if self._total else ''}",
            *([states] if states else []),
            *([f"running: {running}"] if running else []),
            *([self._best()] if self._best() else []),
            f"{duration(self.left())} left",
        ]
        return Text(" | ".join(parts), overflow="ellipsis", no_wrap=True)

    def _best(self) -> str:
        scored = [record for record in [*self._ended, *self._running.values()] if record.score is not None]
        if not scored:
            return ""
        best = max(scored, key=lambda record: self._sign * float(record.score or 0.0))
        return f"best {self._metric} {value(float(best.score or 0.0))} ({best.name})"

    def left(self) -> float:
        """Seconds to the end, by the mean of those that ended here; infinite while nothing is known."""
        if not self._new_ends or not self._total:
            return float("inf")
        rounds = max(0, self._total - len(self._ended)) / self._concurrency
        return statistics.fmean(self._new_ends) * rounds
