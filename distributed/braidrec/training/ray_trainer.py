"""Ray's trainer with its signals left to the driver."""

from typing import Any

from ray.train.torch import TorchTrainer


class StoppableTrainer(TorchTrainer):  # type: ignore[misc]
    """A `TorchTrainer` that the driver can end.

    `TorchTrainer.fit` takes SIGINT for itself and answers it by leaving the process with status 0, as if the training
    had succeeded. The hook in which it does so is also the only place that knows the training's controller.
    """

    _controller: Any = None

    def _register_sigint_handler(self, controller: Any) -> None:
        self._controller = controller

    def controlled_by(self, controller: Any) -> None:
        """Learn the controller from elsewhere: off the main thread the hook is not called."""
        self._controller = controller

    def abort(self) -> None:
        """Ask the controller to end the workers, free what they held and go; does not wait for it."""
        if self._controller is not None:
            self._controller.abort.remote()
