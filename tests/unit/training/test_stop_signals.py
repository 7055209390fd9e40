"""Signals that end a run, at once or when it suits."""

import os
import signal

import pytest

from braidrec.errors import Stopped
from braidrec.training.signals import StopSignals


def test_signals_are_held_back_and_then_raised() -> None:
    def send(signals: StopSignals, *numbers: int) -> None:
        with signals.held_back():
            for number in numbers:
                os.kill(os.getpid(), number)
                seen.append((number, signals.waiting))

    seen: list[tuple[int, bool]] = []
    with StopSignals() as signals:
        with pytest.raises(Stopped) as first:
            send(signals, signal.SIGTERM)
        assert (first.value.signal, first.value.may_save) == (signal.SIGTERM, True)
        with pytest.raises(Stopped) as second:
            send(signals, signal.SIGINT)
        assert (second.value.signal, second.value.may_save) == (signal.SIGINT, False)
    assert seen == [(signal.SIGTERM, True)], "the first waits, the second does not"
