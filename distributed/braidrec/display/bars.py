"""A plain counting bar for jobs that do one thing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def counting_bar(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (done, in all) that moves a bar with the time left; silent where no terminal is."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(title, total=None, unit=unit)

        def move(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield move
