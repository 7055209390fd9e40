"""How a run can end without a result. (What is refused beforehand: `ConfigError` and `DatasetError`.)"""

import signal


class RunError(RuntimeError):
    """A run that ended without a result. The message is its reason, in one sentence."""


class DivergedError(RunError):
    """A loss that is not a number; the parameters are those of the last good step."""


class CheckpointError(RunError):
    """No usable checkpoint where one is needed. The message names the folder and what is wrong with it."""


class EndedEarly(Exception):  # noqa: N818 - it is no error
    """A listener wants the run to end here, as a search does with a trial that does not promise much. No failure."""


class Stopped(KeyboardInterrupt):
    """The process was asked to end. Not an Exception: nothing on the way may swallow it.

    Attributes:
        signal: its number; shells expect the exit status 128 + signal.
        may_save: whether there is time left, and the right, to save where the run is.
    """

    def __init__(self, number: int, *, may_save: bool = True) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.signal, self.may_save = number, may_save
