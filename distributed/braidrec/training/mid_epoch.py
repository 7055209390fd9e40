"""Saving in mid-epoch, where a run is told that it may soon be gone, and going on from there."""

import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from braidrec.data.storage import Location
from braidrec.errors import CheckpointError
from braidrec.models.contract import LearnsRelations
from braidrec.training.build import Parts
from braidrec.training.checkpoint import CheckpointStore, EpochSoFar, RunState
from braidrec.training.context import WorkerContext
from braidrec.training.events import Note
from braidrec.training.saved_state import SavedState
from braidrec.training.step import StepResult
from braidrec.training.timing import PhaseTimer

FOLDER = "mid_epoch"


class EpochSums:
    """Adds up the steps of an epoch.

    Args:
        num_terms: of the loss.
        rank: of this process.
        so_far: where an earlier process left off.
    Attributes:
        step: steps that are done.
        losses, weights: `[T]` over all ranks.
        input_nodes: rows that this rank fetched.
    """

    def __init__(self, num_terms: int, rank: int, so_far: EpochSoFar | None = None) -> None:
        before = so_far or EpochSoFar(
            step=0,
            steps=0,
            world_size=0,
            losses=(0.0,) * num_terms,
            weights=(0.0,) * num_terms,
            input_nodes=(0,) * (rank + 1),
            seconds=0.0,
            phases={},
        )
        self.step = before.step
        self.losses = torch.tensor(before.losses, dtype=torch.float64)
        self.weights = torch.tensor(before.weights, dtype=torch.float64)
        self.input_nodes = before.input_nodes[rank]
        self.start = time.perf_counter() - before.seconds

    def add(self, result: StepResult) -> bool:
        """Count one more step; returns whether some rank was noticed in it."""
        losses, weights, noticed = result.on_cpu()
        self.losses += losses
        self.weights += weights
        self.input_nodes += result.input_nodes
        self.step += 1
        return noticed

    @property
    def seconds(self) -> float:
        """Since the epoch began, without the time in which nobody worked on it."""
        return time.perf_counter() - self.start


class MidEpoch:
    """The one state in mid-epoch, in `<run>/mid_epoch/`: the newest, until the end of an epoch is saved after it.

    It is of use to as many ranks as saved it: others would share the epoch's batches differently, and go back to the
    last end of an epoch. A model that makes relations from the parameters with which the epoch begins has none.

    Args:
        folder: of the run.
        steps: of an epoch.
        timer: of the loop.
    """

    def __init__(
        self, parts: Parts, context: WorkerContext, folder: Location, *, steps: int, timer: PhaseTimer
    ) -> None:
        assert isinstance(parts.model, nn.Module)
        self.store = CheckpointStore(folder.child(FOLDER), warn=self._warn, keep=1, unit="step")
        self.saved = SavedState(parts.tables, parts.model, parts.optimizers, self.store, context)
        self._context, self._steps, self._timer = context, steps, timer
        self._possible = not isinstance(parts.model, LearnsRelations)
        self._is_there = False
        self._newest: int | None = None

    def save(self, state: RunState, sums: EpochSums) -> None:
        """Save where the run is, all ranks together. What cannot be saved is said, and costs the epoch at most.

        Args:
            state: of the last epoch that is over.
            sums: of the one after it.
        """
        step = state.epoch * self._steps + sums.step
        where = f"step {sums.step:,} of {self._steps:,} of epoch {state.epoch + 1}"
        if self._newest == step:
            return
        if not self._possible:
            self._warn(
                f"told to go in {where}: nothing is saved in mid-epoch, for this model learns its relations from the "
                "parameters with which an epoch begins; --resume repeats the epoch"
            )
            return
        try:
            self.saved.save(replace(state, global_step=step, so_far=self._so_far(sums)))
        except CheckpointError as error:
            self._warn(f"told to go in {where}: {error}; --resume repeats the epoch")
            return
        self._newest, self._is_there = step, True
        self._context.emit(Note(message=f"told to go: saved after {where} in {self.store.folder.uri}"))

    def newest_usable(self, config_hash: str, ends: CheckpointStore) -> int:
        """The step (of the run) after which a state is saved that can be gone on from, else 0. Asked by rank 0.

        Args:
            config_hash: of the run.
            ends: of epochs; a whole one that is newer is what the run goes on from.
        """
        numbers = self.store.epochs()
        self._is_there = bool(numbers)
        if not numbers or not self.store.is_good(numbers[-1], instead="going back to the last end of an epoch"):
            return 0
        state = self.store.state(numbers[-1])
        if state.so_far is None or state.config_hash != config_hash:
            return 0
        instead = f"looking at what was saved in mid-epoch, after epoch {state.epoch}"
        if any(ends.is_good(epoch, instead=instead) for epoch in ends.epochs() if epoch > state.epoch):
            return 0
        then, now = state.so_far.world_size, self._context.world_size
        if (then, state.so_far.steps) != (now, self._steps):
            self._warn(
                f"{self.store.folder.uri}: saved by {then} worker{'s'[: then > 1]} in step {state.so_far.step:,} of "
                f"{state.so_far.steps:,} of epoch {state.epoch + 1}, and {now} would share its batches differently: "
                "going back to the last end of an epoch"
            )
            return 0
        return numbers[-1]

    def load(self, step: int) -> tuple[RunState, EpochSoFar]:
        """Go on from there: parameters, optimizers, the seconds by phase.

        Returns:
            the state of the last epoch that is over, and what the one after it has come to.
        """
        tensors, state = self.store.load(step, self.saved.held)
        assert state.so_far is not None
        self.saved.put(tensors, optimizers=True)
        self._timer.add(_known(state.so_far.phases))
        self._newest = step
        return replace(state, global_step=state.epoch * self._steps, so_far=None), state.so_far

    def forget(self) -> None:
        """The end of an epoch is saved, by all ranks: what is here is older."""
        if self._is_there and self._context.rank == 0:
            self.store.folder.remove()
        self._is_there = False

    def _so_far(self, sums: EpochSums) -> EpochSoFar:
        own = torch.tensor([sums.input_nodes], device=self._context.device)
        return EpochSoFar(
            step=sums.step,
            steps=self._steps,
            world_size=self._context.world_size,
            losses=tuple(sums.losses.tolist()),
            weights=tuple(sums.weights.tolist()),
            input_nodes=tuple(self._context.all_gather_rows(own).tolist()),
            seconds=sums.seconds,
            phases=self._timer.seconds,
        )

    def _warn(self, message: str) -> None:
        self._context.emit(Note(message=message, level="warning"))


def _known(phases: Mapping[str, float]) -> dict[str, float]:
    return {str(name): float(seconds) for name, seconds in phases.items()}
