"""A training worker under Ray Train, and the mailbox through which rank 0 talks to the driver."""

from collections.abc import Iterable
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
from braidrec.training.events import Event
from braidrec.training.loop import Loop, LoopResult

FINAL_ERRORS = (ConfigError, DatasetError, RunError)
"""Errors that every rank meets alike and that trying again does not mend."""


class Refused:
    """The run cannot go on for a reason of its own; restarting workers would not help."""

    def __init__(self, error: Exception) -> None:
        self.kind = type(error).__name__
        self.reason = str(error)


@ray.remote(num_cpus=0)
class Mailbox:
    """Holds what rank 0 says until the driver fetches it."""

    def __init__(self) -> None:
        self._waiting: list[Event | LoopResult | Refused] = []

    def post(self, message: Event | LoopResult | Refused) -> None:
        self._waiting.append(message)

    def take(self) -> list[Event | LoopResult | Refused]:
        waiting, self._waiting = self._waiting, []
        return waiting


class RayWorker(ProcessGroup):
    """A worker of Ray Train: its process group, its shard from Ray Data, the mailbox."""

    def __init__(self, mailbox: Any, *, streams: bool) -> None:
        train = ray.train.get_context()
        super().__init__(device=ray.train.torch.get_device(), local_rank=train.get_local_rank())
        self._mailbox = mailbox
        self._streams = streams

    def train_chunks(self) -> Iterable[Rows] | None:
        if not self._streams:
            return None
        shard = ray.train.get_dataset_shard("train")
        chunks: Iterable[Rows] = shard.iter_batches(batch_size=CHUNK_ROWS, batch_format="numpy")
        return chunks

    def emit(self, event: Event) -> None:
        if self.rank == 0:
            self._mailbox.post.remote(event)

    def emit_last(self, message: LoopResult | Refused) -> None:
        """Tell the driver how it ended, and wait until it is told: this process may be gone in a moment."""
        if self.rank == 0:
            ray.get(self._mailbox.post.remote(message))


def train_worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs on every worker."""
    config = validate(RunConfig, settings["config"], "the run's configuration")
    use_threads(settings["threads"])
    context = RayWorker(settings["mailbox"], streams=settings["streams"])
    try:
        folder = DatasetFolder.open(config.data.path)
        loop = Loop(config, build_parts(config, folder, context), context, Location.of(settings["run_folder"]))
        result = loop.run()
    except FINAL_ERRORS as error:
        context.emit_last(Refused(error))
        return
    context.emit_last(result)
