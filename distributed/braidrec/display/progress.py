"""The course of a training for a person: a live line on a terminal, a few plain lines in a log."""

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from braidrec.display.text import duration, rate, value
from braidrec.training.events import EpochEnd, Event, Finished, Note, Progress, Started

_STAGES = {"train": "training", "valid": "validation"}


class ProgressDisplay:
    """Listens to a training and shows it.

    On a terminal the current stage is one live line with its rate, the time that it still takes and the time that the
    run still takes at most (it may stop early). Elsewhere, and above the live line, an epoch is one line. At most one
    ordinary line is printed per `seconds_between_lines`, so that a thousand fast epochs do not flood a log; the newest
    best epoch and the last epoch are always printed, at the latest at the end.

    A context manager: leaving it takes the live line away, also when the training has failed.

    Args:
        monitor: the validation metric shown, such as "recall@20".
        console: where to print; None: standard output.
        seconds_between_lines: smallest pause between two ordinary lines.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        monitor: str | None,
        *,
        console: Console | None = None,
        seconds_between_lines: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monitor = monitor
        self._console = console or Console()
        self._pause = seconds_between_lines
        self._clock = clock
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._epochs = 0
        self._epochs_done = 0
        self._start = self._epoch_start = clock()
        self._rate: float | None = None
        self._last_printed: float | None = None
        self._held_best: str | None = None
        self._held_last: str | None = None

    def __enter__(self) -> "ProgressDisplay":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def handle(self, event: Event) -> None:
        """Show one event. A `Note` may come from any thread, everything else from one."""
        match event:
            case Started():
                self._started(event)
            case Progress():
                self._progress(event)
            case EpochEnd():
                self._epoch_end(event)
            case Note():
                self._note(event)
            case Finished():
                self._finished(event)

    def close(self) -> None:
        """Print the lines held back and take the live line away."""
        self._release()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _started(self, event: Started) -> None:
        self._epochs = event.epochs
        self._epochs_done = 0
        self._start = self._epoch_start = self._clock()
        if event.steps_per_epoch:  # a run without training has none
            self._print(
                f"epochs {event.first_epoch} to {event.epochs}, {event.steps_per_epoch:,} steps and "
                f"{event.interactions_per_epoch:,} interactions each"
            )
        for name, fact in event.facts.items():
            self._print(f"  {name}: {fact}")

    def _progress(self, event: Progress) -> None:
        if event.stage == "train":
            self._rate = event.rate
        if not self._console.is_interactive:  # a log, or a terminal that cannot redraw a line
            return
        if self._bar is None:
            self._open_bar()
        assert self._bar is not None and self._task is not None
        what = "interactions" if event.stage == "train" else "users"
        left = (event.total - event.done) / event.rate if event.rate > 0 else float("inf")
        self._bar.update(
            self._task,
            refresh=True,
            visible=True,
            description=f"epoch {event.epoch}/{self._epochs} {_STAGES.get(event.stage, event.stage)}",
            completed=event.done,
            total=event.total,
            speed=f"{rate(event.rate)} {what}/s",
            left=f"{duration(left)} left, run {duration(self._run_left(event, left))}",
        )

    def _open_bar(self) -> None:
        description, speed, left = (
            TextColumn(f"{{{text}}}") for text in ("task.description", "task.fields[speed]", "task.fields[left]")
        )
        columns = (description, BarColumn(), MofNCompleteColumn(), speed, left)
        # Drawn when there is news, a few times a second: no thread of its own.
        self._bar = Bar(*columns, console=self._console, transient=True, auto_refresh=False)
        self._task = self._bar.add_task("", total=None, visible=False, speed="", left="")
        self._bar.start()

    def _run_left(self, event: Progress, stage_left: float) -> float:
        """Seconds to the end of the last epoch, from the mean of the finished ones or else from this one's pace."""
        if event.stage == "test":
            return stage_left
        spent = self._clock() - self._epoch_start
        if self._epochs_done:
            whole = (self._epoch_start - self._start) / self._epochs_done
            this_one = max(whole - spent, stage_left)
        else:
            whole = spent + stage_left
            this_one = stage_left
        return this_one + whole * (self._epochs - event.epoch)

    def _epoch_end(self, event: EpochEnd) -> None:
        now = self._clock()
        seconds, self._epoch_start = now - self._epoch_start, now
        self._epochs_done += 1
        line = self._line(event, seconds)
        if self._last_printed is not None and now - self._last_printed < self._pause:
            self._held_last = line
            if event.best:
                self._held_best = line
            return
        if self._held_best is not None and not event.best:
            self._print(self._held_best)
        self._held_best = self._held_last = None
        self._print(line)
        self._last_printed = now

    def _line(self, event: EpochEnd, seconds: float) -> str:
        metrics = event.metrics
        width = len(str(self._epochs))
        parts = [f"epoch {event.epoch:>{width}}/{self._epochs}"]
        if "train/loss" in metrics:
            parts.append(f"loss {value(metrics['train/loss'])}")
        if f"valid/{self._monitor}" in metrics:
            best = " (best)" if event.best else ""
            parts.append(f"{self._monitor} {value(metrics[f'valid/{self._monitor}'])}{best}")
        parts.append(f"{seconds:.1f} s")
        speed = metrics.get("train/interactions_per_second", self._rate)
        if speed is not None:
            parts.append(f"{rate(speed)} interactions/s")
        left = (self._epoch_start - self._start) / self._epochs_done * (self._epochs - event.epoch)
        parts.append(f"ETA {duration(left)}")
        return "  ".join(parts)

    def _note(self, event: Note) -> None:
        if event.level == "warning":
            self._console.print(f"[bold yellow]warning:[/] {escape(event.message)}", soft_wrap=True, highlight=False)
        else:
            self._print(event.message)

    def _finished(self, event: Finished) -> None:
        self.close()
        total = duration(self._clock() - self._start)
        self._print(f"{event.epochs_run} epochs run in {total}; the best was epoch {event.best_epoch}")

    def _release(self) -> None:
        if self._held_best is not None and self._held_best != self._held_last:
            self._print(self._held_best)
        if self._held_last is not None:
            self._print(self._held_last)
        self._held_best = self._held_last = None

    def _print(self, line: str) -> None:
        # Soft wrapping: the width of a log is nobody's business, and a wrapped line cannot be searched for.
        self._console.print(escape(line), soft_wrap=True, highlight=False)
