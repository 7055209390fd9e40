"""A training worker under Ray Train."""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.train
import ray.train.torch

from braidrec.config.load import ConfigError, validate
from braidrec.config.run import RunConfig
from braidrec.data.delivery import CHUNK_ROWS, Rows
from braidrec.data.errors import DatasetError
from braidrec.data.folder import DatasetFolder
from braidrec.data.storage import Location
from braidrec.errors import RunError
from braidrec.training.build import build_parts
from braidrec.training.context import ProcessGroup
from braidrec.training.environment import use_threads
from braidrec.training.events import EpochEnd, Event, Started
from braidrec.training.loop import Loop
from braidrec.training.mailbox import Controlled, Left, Refused
from braidrec.training.ray_backend import TERMINATION
from braidrec.training.result import LoopResult
from braidrec.training.run_folder import RunFolder

FINAL_ERRORS = (ConfigError, DatasetError, RunError)
"""Errors that trying again does not mend."""


class RayWorker(ProcessGroup):
    """A worker of Ray Train: its process group, its shard from Ray Data, the mailbox."""

    uses_ray = True

    def __init__(self, mailbox: Any, *, streams: bool) -> None:
        train = ray.train.get_context()
        super().__init__(device=ray.train.torch.get_device(), local_rank=train.get_local_rank())
        self._mailbox = mailbox
        self._streams = streams
        self._will_take_steps = False
        self._driver_goes = False
        self._of_ray = _preemption_of_ray()
        self._heeded: Any = None
        self._said: Any = None
        if self.rank == 0:
            threading.Thread(target=self._listen, name="told-to-go", daemon=True).start()

    def train_chunks(self) -> Iterable[Rows] | None:
        if not self._streams:
            return None
        shard = ray.train.get_dataset_shard("train")
        chunks: Iterable[Rows] = shard.iter_batches(batch_size=CHUNK_ROWS, batch_format="numpy")
        return chunks

    def emit(self, event: Event) -> None:
        """Rank 0 tells the driver, and waits until the end of an epoch is on record there.

        The checkpoint that follows lets a resumed run begin after that epoch, so nobody would report it again.
        """
        if self.rank != 0:
            return
        if isinstance(event, Started):
            self._will_take_steps = True
        if isinstance(event, EpochEnd):
            self._will_take_steps = not event.last
            ray.get(self._mailbox.post.remote(event, until_handled=True))
        else:
            self._said = self._mailbox.post.remote(event)

    @contextmanager
    def taking_steps(self) -> Iterator[None]:
        with TERMINATION.held_back():
            yield

    def noticed(self) -> bool:
        return TERMINATION.given or self._driver_goes or self._of_ray.preemption_info is not self._heeded

    def heed(self) -> None:
        """The driver ends a run that it was told to end. A node that Ray Train knows to go is worked on until it does,
        and a process that was sent SIGTERM goes now; in both cases Ray Train starts anew where there is room."""
        self._heeded = self._of_ray.preemption_info
        if self._driver_goes:  # for others than the driver it would say too early that all is saved
            self._driver_goes = False
            ray.get(self._mailbox.post.remote(Left()))
        elif self._said is not None:
            ray.get(self._said)  # that it is saved; this process may be gone in a moment
        TERMINATION.heed()

    def _listen(self) -> None:
        """Let the run be ended when the driver was told to: after a step, if any is still to be taken."""
        try:
            ray.get(self._mailbox.until_told_to_go.remote())
            self._driver_goes = True
            if not self._will_take_steps:
                self._mailbox.post.remote(Left())
        except ray.exceptions.RayError:
            return  # the run is over

    def emit_result(self, result: LoopResult) -> None:
        """Rank 0 hands the result over and waits until it has arrived: this process may be gone in a moment."""
        if self.rank == 0:
            ray.get(self._mailbox.post.remote(result))

    def emit_controller(self) -> None:
        """Rank 0 names the workers' controller, by which the driver can end them.

        Ray Train tells its trainer who that is on the main thread only, and a trial of a search is on another. No
        public call of Ray knows the controller, so other trainings do without.
        """
        from ray.train.v2._internal.execution.context import get_train_context

        if self.rank == 0:
            self._mailbox.post.remote(Controlled(controller=get_train_context().controller_actor))

    def emit_refusal(self, error: Exception) -> None:
        """Any rank may be the only one that cannot go on, because of its node or because it looks first."""
        ray.get(self._mailbox.post.remote(Refused(reason=str(error))))


def _preemption_of_ray() -> Any:
    """Where Ray Train keeps what it knows of nodes that are about to go: `preemption_info`, None until there is some.

    `ray.train.get_preemption_info` asks all ranks to agree on it through an actor, which takes longer than many steps
    do; the step's own collective agrees on it as well.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context


def run_worker(settings: dict[str, Any]) -> None:
    """Train as one rank; `settings` are those that the driver gave to Ray Train."""
    config = validate(RunConfig, settings["config"], "the run's configuration")
    use_threads(settings["threads"])
    context = RayWorker(settings["mailbox"], streams=settings["streams"])
    if settings["name_controller"]:
        context.emit_controller()
    try:
        folder = DatasetFolder.open(config.data.path)
        run_folder = RunFolder(Location.of(settings["run_folder"]))
        run_folder.check_reachable()
        loop = Loop(config, build_parts(config, folder, context, run_folder), context, run_folder.location)
        result = loop.run()
    except FINAL_ERRORS as error:
        context.emit_refusal(error)
        return
    context.emit_result(result)
