"""What a person sees of a training, on a terminal and in a log."""

import io
from typing import Any

import pytest
from rich.console import Console

from braidrec.display import ProgressDisplay
from braidrec.training.events import EpochEnd, Finished, Note, Progress, Started


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def show(clock: Clock, *, terminal: str | None = None, **changes: Any) -> tuple[ProgressDisplay, Console]:
    """On a terminal of that kind, or in a log; whatever the tests themselves are run in."""
    surroundings = {} if terminal is None else {"TERM": terminal}
    console = Console(
        record=True, width=60, file=io.StringIO(), force_terminal=terminal is not None, _environ=surroundings
    )
    return ProgressDisplay("recall@20", console=console, clock=clock, **changes), console


def began(display: ProgressDisplay, epochs: int = 100) -> None:
    display.handle(Started(first_epoch=1, epochs=epochs, steps_per_epoch=10, interactions_per_epoch=20_000))


def ended(display: ProgressDisplay, epoch: int, *, best: bool = False, **metrics: float) -> None:
    shown = {"train/loss": 0.5, "valid/recall@20": epoch / 10_000, "train/interactions_per_second": 12_345.6, **metrics}
    display.handle(EpochEnd(epoch=epoch, metrics=shown, best=best))


def epochs_in(text: str) -> list[int]:
    return [int(line.split()[1].split("/")[0]) for line in text.splitlines() if line.startswith("epoch ")]


def test_a_log_has_one_line_per_epoch(clock: Clock) -> None:
    display, console = show(clock)
    began(display)
    clock.now += 12.34
    ended(display, 1, best=True, **{"valid/recall@20": 0.1234})
    clock.now += 7.66
    ended(display, 2, **{"valid/recall@20": 0.1})
    lines = console.export_text().splitlines()
    assert lines == [
        "epochs 1 to 100, 10 steps and 20,000 interactions each",
        "epoch   1/100  loss 0.5000  recall@20 0.1234 (best)  12.3 s  12,346 interactions/s  ETA 0:20:22",
        # 20 s for two epochs, 98 to come.
        "epoch   2/100  loss 0.5000  recall@20 0.1000  7.7 s  12,346 interactions/s  ETA 0:16:20",
    ]


def test_an_epoch_without_validation(clock: Clock) -> None:
    display, console = show(clock)
    began(display)
    clock.now += 1
    display.handle(EpochEnd(epoch=1, metrics={"train/loss": 1e-5}))
    assert console.export_text().splitlines()[1] == "epoch   1/100  loss 1e-05  1.0 s  ETA 0:01:39"


def test_a_thousand_fast_epochs_do_not_flood_but_best_and_last_are_there(clock: Clock) -> None:
    display, console = show(clock)
    began(display, epochs=1000)
    for epoch in range(1, 1001):
        clock.now += 0.05
        ended(display, epoch, best=epoch <= 500 or epoch == 998)
    display.handle(Finished(best_epoch=998, epochs_run=1000, metrics={}))
    text = console.export_text()
    printed = epochs_in(text)
    # 50 s, a line every five, now and then the newest best before it, and the end.
    assert len(printed) <= 2 * 11 + 2
    assert printed == sorted(set(printed))
    assert printed[-2:] == [998, 1000]
    assert 500 in printed, "the best so far is shown with the next line that is due"
    assert text.splitlines()[-1] == "1000 epochs run in 0:00:50; the best was epoch 998"


def test_a_failed_training_still_shows_its_last_epoch(clock: Clock) -> None:
    def fail(display: ProgressDisplay) -> None:
        with display:
            began(display)
            for epoch in (1, 2, 3):
                clock.now += 0.1
                ended(display, epoch, best=epoch == 2)
            raise RuntimeError("loss is NaN")

    display, console = show(clock)
    with pytest.raises(RuntimeError, match="NaN"):
        fail(display)
    assert epochs_in(console.export_text()) == [1, 2, 3]


def test_warnings_facts_and_markup(clock: Clock) -> None:
    display, console = show(clock)
    facts = {"propagation": "full: 1.6 M edges [red]against[/red] 9.2 M"}
    display.handle(Started(first_epoch=5, epochs=9, steps_per_epoch=1, interactions_per_epoch=1, facts=facts))
    display.handle(Note(message="checkpoint [epoch-4] is broken: " + "x" * 80, level="warning"))
    display.handle(Note(message="continuing"))
    assert console.export_text().splitlines() == [
        "epochs 5 to 9, 1 steps and 1 interactions each",
        "  propagation: full: 1.6 M edges [red]against[/red] 9.2 M",
        "warning: checkpoint [epoch-4] is broken: " + "x" * 80,
        "continuing",
    ]


@pytest.mark.parametrize("terminal", [None, "dumb"])
def test_what_cannot_move_a_cursor_shows_no_live_line(clock: Clock, terminal: str | None) -> None:
    display, console = show(clock, terminal=terminal)
    assert isinstance(console.file, io.StringIO)
    with display:
        began(display)
        before = console.file.getvalue()
        display.handle(Progress(stage="train", epoch=1, done=500, total=1000, rate=100.0))
        assert console.file.getvalue() == before
        ended(display, 1)
    written = console.file.getvalue()
    assert "epoch   1/100" in written
    assert "\x1b" not in written and "\r" not in written


def test_a_terminal_shows_rate_and_both_times_left(clock: Clock) -> None:
    display, console = show(clock, terminal="xterm")
    console.width = 160
    with display:
        began(display, epochs=3)
        clock.now += 10
        # 10 s spent and 5 s to go in this epoch, two more of 15 s.
        display.handle(Progress(stage="train", epoch=1, done=1000, total=1500, rate=100.0))
        text = console.export_text()
        assert "epoch 1/3 training" in text
        assert "1000/1500" in text
        assert "100 interactions/s" in text
        assert "0:00:05 left, run 0:00:35" in text
        clock.now += 10
        ended(display, 1)
        clock.now += 4
        # The first epoch took 20 s: 16 s of this one and 20 s of the third are left.
        display.handle(Progress(stage="valid", epoch=2, done=30, total=40, rate=2.5))
        text = console.export_text()
        assert "epoch 2/3 validation" in text
        assert "2.5 users/s" in text
        assert "0:00:04 left, run 0:00:36" in text
        display.handle(Progress(stage="test", epoch=2, done=30, total=40, rate=0.0))
        assert "? left, run ?" in console.export_text()


def test_a_restarted_training_does_not_count_the_time_before(clock: Clock) -> None:
    display, console = show(clock)
    began(display, epochs=10)
    clock.now += 1000
    display.handle(Started(first_epoch=6, epochs=10, steps_per_epoch=1, interactions_per_epoch=1))
    clock.now += 10
    ended(display, 6)
    assert "10.0 s" in console.export_text(clear=False)
    assert "ETA 0:00:40" in console.export_text()
