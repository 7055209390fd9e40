"""The training loop, written once: the same code in one process, in a bare process group and under Ray Train."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from braidrec.config.load import ConfigError
from braidrec.config.run import RunConfig
from braidrec.data.delivery import Rows, ShardPlan
from braidrec.data.description import Split
from braidrec.data.folder import DatasetFolder
from braidrec.data.pairs import pairs_of
from braidrec.data.storage import Location
from braidrec.errors import CheckpointError, RunError, Stopped
from braidrec.evaluation.full_ranking import rank
from braidrec.evaluation.ranker import Ranker
from braidrec.graph.relation import Relation
from braidrec.models.contract import Encoded
from braidrec.training.ahead import made_ready
from braidrec.training.build import Parts
from braidrec.training.checkpoint import CheckpointStore, EpochSoFar, RunState
from braidrec.training.context import WorkerContext
from braidrec.training.events import EpochEnd, Finished, Note, Progress, Started
from braidrec.training.hardening import build_adversary, build_mirror
from braidrec.training.mid_epoch import EpochSums, MidEpoch
from braidrec.training.optimizers import learning_rate_factor, set_learning_rate
from braidrec.training.result import LoopResult
from braidrec.training.run_folder import config_hash
from braidrec.training.saved_state import SavedState, without_optimizer
from braidrec.training.step import Position, Prepared, TrainStep
from braidrec.training.timing import PhaseTimer, peak_memory_mb
from braidrec.training.validation import (
    SplitEvaluation,
    SplitResult,
    attention_metrics,
    encode_all,
    make_ranker,
    sign_of,
)

SECONDS_BETWEEN_PROGRESS = 0.4
EXAMPLE_ITEMS = 5


class Loop:
    """Epochs of steps, validation, early stopping, checkpoints; then the test of the best epoch.

    Args:
        config: the run.
        parts: what `build_parts` made for this rank.
        context: the worker.
        run_folder: where checkpoints and per-user results go; shared by all ranks.
    """

    def __init__(self, config: RunConfig, parts: Parts, context: WorkerContext, run_folder: Location) -> None:
        self.config, self.parts, self.context, self.folder = config, parts, context, run_folder
        self.timer = PhaseTimer(context.device)
        # With fewer workers than configured, after the loss of a node, it need not divide evenly.
        self.batch_rows = -(-config.training.batch_size // context.world_size)
        plan = ShardPlan(total_rows=parts.rows_per_epoch, world_size=context.world_size)
        self.steps_per_epoch = -(-plan.rows_per_rank // self.batch_rows)
        self.rows_per_epoch = plan.total_rows
        self.rate = learning_rate_factor(config.training.optimizer, config.training.epochs * self.steps_per_epoch)
        self.store = CheckpointStore(run_folder.child("checkpoints"), warn=self._warn)
        assert isinstance(parts.model, nn.Module)
        self.saved = SavedState(parts.tables, parts.model, parts.optimizers, self.store, context)
        self.mid_epoch = MidEpoch(parts, context, run_folder, steps=self.steps_per_epoch, timer=self.timer)
        self.so_far: EpochSoFar | None = None
        self.step = self._make_step()
        self.valid = self._evaluation("valid", mask="train", detail=False)
        wanted = config.evaluation.test
        self.test = self._evaluation("test", mask=config.evaluation.mask, detail=True) if wanted else None
        self.state = RunState(
            epoch=0, global_step=0, best_epoch=0, best_value=None, stale_validations=0, config_hash=config_hash(config)
        )

    def run(self) -> LoopResult:
        """Train from where the newest checkpoint stands to the end, then test the best epoch."""
        self._resume()
        self.context.emit(
            Started(
                first_epoch=self.state.epoch + 1,
                epochs=self.config.training.epochs,
                steps_per_epoch=self.steps_per_epoch,
                interactions_per_epoch=self.rows_per_epoch,
                facts={**self.parts.facts, "parameters": f"{self._num_parameters():,} trained"},
            )
        )
        while self.state.epoch < self.config.training.epochs and not self._out_of_patience():
            self._epoch(self.state.epoch + 1)
        return self._finish()

    def _epoch(self, epoch: int) -> None:
        sums = EpochSums(len(self.step.term_names), self.context.rank, self.so_far)
        before, self.so_far = self.state, None
        try:
            metrics = self._train(epoch, sums)
            self._end_epoch(epoch, metrics)
        except Stopped as stop:
            # After its last step nothing more is learnt: wherever it is, the parameters are those that go on.
            if sums.step == self.steps_per_epoch and stop.may_save:
                self.mid_epoch.save(before, sums)
            raise

    def _end_epoch(self, epoch: int, metrics: dict[str, float]) -> None:
        improved = False
        if epoch % self.config.evaluation.every == 0 or epoch == self.config.training.epochs:
            metrics |= self._validate(epoch)
            improved = self._keep_score(epoch, metrics)
        self.state = replace(self.state, epoch=epoch, global_step=epoch * self.steps_per_epoch)
        seconds = self.timer.take()
        metrics |= {f"seconds/{phase}": value for phase, value in seconds.items()}
        metrics |= self._peak_memory()
        last = epoch == self.config.training.epochs or self._out_of_patience()
        counts = not self._is_preparation(epoch)
        # Said before it is saved: who dies in between says it twice, which listeners expect, and never not at all.
        self.context.emit(EpochEnd(epoch=epoch, metrics=metrics, best=improved, counts=counts, last=last))
        if improved or last or epoch % self.config.training.checkpoint_every == 0:
            with self.timer.phase("checkpoint"):  # counted to the next epoch
                self.saved.save(self.state)
            self.mid_epoch.forget()

    def _peak_memory(self) -> dict[str, float]:
        """Of the rank that needs most."""
        own = peak_memory_mb(self.context.device)
        if self.context.world_size == 1:
            return own
        every = self.context.all_gather_rows(torch.tensor([list(own.values())], device=self.context.device))
        return dict(zip(own, every.max(dim=0).values.tolist(), strict=True))

    def _train(self, epoch: int, sums: EpochSums) -> dict[str, float]:
        """All steps of an epoch that are not done yet; mean losses and the rate."""
        if self.parts.has_changing_relations:
            with self.timer.phase("views"):
                self.parts.before_epoch(epoch)
        reported = time.perf_counter()
        with self.context.taking_steps():
            for rows, at, prepared in self._prepared(epoch, sums.step):
                set_learning_rate(self.parts.optimizers, self._learning_rate(at.global_step))
                if sums.add(self.step.run(rows, at, prepared)):
                    self.mid_epoch.save(self.state, sums)
                    self.context.heed()
                now = time.perf_counter()
                if now - reported > SECONDS_BETWEEN_PROGRESS:
                    reported = now
                    self._progress("train", epoch, (at.step + 1) * self.config.training.batch_size, sums.start)
            # Who is told after the last step's sum would wait in vain for another step: what follows is no step.
            if self._of_all_ranks(self.context.noticed()):
                self.mid_epoch.save(self.state, sums)
                self.context.heed()
        self._check_delivered(epoch, int(sums.weights[1]))
        seconds, input_nodes = sums.seconds, sums.input_nodes
        means = sums.losses / sums.weights.clamp(min=1e-12)
        return {
            "train/loss": float(means.sum()),
            **{f"train/{name}_term": float(value) for name, value in zip(self.step.term_names, means, strict=True)},
            "train/interactions_per_second": self.rows_per_epoch / seconds,
            "train/input_nodes_per_step": input_nodes / self.steps_per_epoch,
            "train/input_rows_per_interaction": self._of_all_ranks(input_nodes) / self.rows_per_epoch,
            "train/learning_rate": self._learning_rate(epoch * self.steps_per_epoch - 1),
            "train/seconds": seconds,
        }

    def _of_all_ranks(self, number: float) -> float:
        return float(self.context.all_reduce(torch.tensor([number], dtype=torch.float64, device=self.context.device)))

    def _check_delivered(self, epoch: int, rows: int) -> None:
        """Every interaction once an epoch, over all ranks: what Ray Data delivered is counted, not trusted."""
        if rows != self.rows_per_epoch:
            raise RunError(
                f"epoch {epoch}: {rows:,} interactions were trained on, the train split has {self.rows_per_epoch:,}; "
                "the delivery lost or repeated some. Try data.delivery=memory, and report this with the log of the run"
            )

    def _prepared(self, epoch: int, first: int) -> Iterator[tuple[Rows, Position, Prepared | None]]:
        """The batches from one on; where drawing takes time, one is drawn for while the one before it is computed.

        Only with LABOR, which is given its random numbers' seed: DGL's other draws depend on the thread as well.
        """
        batches = self._timed_batches(epoch, first)
        by_seed_alone = self.parts.choice.mode == "sampled" and self.config.training.propagation.sampler == "labor"
        if self.config.training.prepare_ahead and by_seed_alone and self.step.prepares_alone:
            return made_ready(self.step, batches, self.timer)
        return ((rows, at, None) for rows, at in batches)

    def _timed_batches(self, epoch: int, first: int) -> Iterator[tuple[Rows, Position]]:
        batches = self.parts.delivery.batches(epoch, self.batch_rows, self.steps_per_epoch, first)
        for step in range(first, self.steps_per_epoch):
            with self.timer.phase("data"):
                rows = next(batches)
            yield rows, Position(epoch=epoch, step=step, global_step=(epoch - 1) * self.steps_per_epoch + step)

    def _validate(self, epoch: int) -> dict[str, float]:
        watched = {"valid": self.valid, "test": self.test if self.config.evaluation.watch_test else None}
        with self.timer.phase("evaluation"):
            encoded = encode_all(self.parts)
            results = self._evaluate(watched, make_ranker(self.parts, encoded), epoch)
        return self._told(results, encoded)

    def _told(self, results: Mapping[str, SplitResult], encoded: Encoded) -> dict[str, float]:
        metrics = {f"{split}/{name}": value for split, done in results.items() for name, value in done.metrics.items()}
        return metrics | attention_metrics(self.parts, encoded)

    def _evaluate(
        self, evaluations: Mapping[str, SplitEvaluation | None], ranker: Ranker, epoch: int
    ) -> dict[str, SplitResult]:
        """Results of the splits that have an evaluation."""
        return {
            split: evaluation.run(ranker, self.context, self._reporter(split, epoch, time.perf_counter()))
            for split, evaluation in evaluations.items()
            if evaluation is not None
        }

    def _keep_score(self, epoch: int, metrics: dict[str, float]) -> bool:
        """Update best and patience; with neither a metric nor (yet) an adversary that is wanted, the newest is best."""
        monitor = self.config.evaluation.monitor
        # Epochs before the adversary comes are a preparation: none of them may be chosen, or end the run.
        if monitor is None or self._is_preparation(epoch):
            self.state = replace(self.state, best_epoch=epoch, best_value=None, stale_validations=0)
            return False
        value, best = metrics.get(f"valid/{monitor}"), self.state.best_value
        if value is None:
            raise ConfigError(
                f"evaluation.monitor={monitor!r} is undefined for every validation user (as AUC is for a user without "
                "negatives): monitor another metric"
            )
        if best is None or sign_of(monitor) * value > sign_of(monitor) * best:
            self.state = replace(self.state, best_epoch=epoch, best_value=value, stale_validations=0)
            return True
        self.state = replace(self.state, stale_validations=self.state.stale_validations + 1)
        return False

    def _is_preparation(self, epoch: int) -> bool:
        adversary = self.step.adversary
        return adversary is not None and not adversary.is_active(epoch)

    def _out_of_patience(self) -> bool:
        patience = self.config.evaluation.patience
        return patience is not None and self.state.stale_validations >= patience

    def _finish(self) -> LoopResult:
        if self.state.best_epoch != self.state.epoch:
            self._restore_best()
        if self.context.rank == 0:
            self.folder.child("per_user").remove()  # by an earlier finish, perhaps with more ranks
        self.context.barrier()
        encoded = encode_all(self.parts)
        ranker = make_ranker(self.parts, encoded)
        results = self._evaluate({"valid": self.valid, "test": self.test}, ranker, self.state.best_epoch)
        metrics = self._told(results, encoded)
        if "test" in results:
            results["test"].write_per_user(self.folder.child(f"per_user/test/part-{self.context.rank:05d}.parquet"))
        example_user, example_items = 0, list[tuple[int, float]]()
        if self.context.rank == 0:
            example_user, example_items = example_of(ranker, self.parts.folder, self.parts.interactions)
        self.context.barrier()
        self.context.emit(Finished(best_epoch=self.state.best_epoch, epochs_run=self.state.epoch, metrics=metrics))
        return LoopResult(
            best_epoch=self.state.best_epoch,
            epochs_run=self.state.epoch,
            metrics=metrics,
            example_user=example_user,
            example_items=example_items,
            slices=results["test"].result.slices if "test" in results else {},
        )

    def _num_parameters(self) -> int:
        assert isinstance(self.parts.model, nn.Module)
        in_tables = sum(table.num_rows * table.weight.shape[1] for table in self.parts.tables.values())
        return in_tables + sum(each.numel() for each in self.parts.model.parameters() if each.requires_grad)

    def _resume(self) -> None:
        wanted = self.state.config_hash
        step = self._agreed(lambda: self.mid_epoch.newest_usable(wanted, self.store))
        if step:
            self.state, self.so_far = self.mid_epoch.load(step)
            where = f"after step {self.so_far.step:,} of {self.steps_per_epoch:,} of epoch {self.state.epoch + 1}"
            self.context.emit(Note(message=f"continuing {where} from {self.mid_epoch.store.folder.uri}"))
            return
        epoch = self._agreed(self.store.newest_good)
        if epoch == 0:
            return
        tensors, state = self.store.load(epoch, self.saved.held)
        if state.config_hash != self.state.config_hash:
            raise CheckpointError(f"{self.store.folder.uri}: written by another configuration; choose another run name")
        self.state = state
        self.saved.put(tensors, optimizers=True)
        self.context.emit(Note(message=f"continuing after epoch {state.epoch} from {self.store.folder.uri}"))

    def _restore_best(self) -> None:
        """Go back to the best epoch; if its checkpoint is broken, stay at the last one and say so."""
        best = self.state.best_epoch
        instead = f"the results are those of the last epoch, {self.state.epoch}, not of the best, {best}"
        if self._agreed(lambda: best if self.store.is_good(best, instead=instead) else 0):
            tensors, _ = self.store.load(best, self.saved.held, wanted=without_optimizer)
            self.saved.put(tensors, optimizers=False)
        else:
            self.state = replace(self.state, best_epoch=self.state.epoch)

    def _agreed(self, decide: Callable[[], int]) -> int:
        """What rank 0 decides. Each rank for itself could see a storage in another state, and train another model."""
        number = decide() if self.context.rank == 0 else 0
        return int(self.context.all_reduce(torch.tensor([number], device=self.context.device)))

    def _make_step(self) -> TrainStep:
        parts, config = self.parts, self.config
        return TrainStep(
            model=parts.model,
            tables=parts.tables,
            objective=parts.objective,
            regulariser=config.objective.regulariser,
            source=parts.source,
            chains=parts.chains,
            negatives=parts.negatives,
            per_positive=config.objective.negatives.per_positive,
            exclude_from=parts.excluded,
            num_users=parts.num_users,
            num_items=parts.folder.num_items,
            features=parts.world.features.fetch,
            cold=parts.world.cold,
            optimizers=parts.optimizers,
            gradient_clip=config.training.optimizer.gradient_clip,
            seed=config.seed,
            context=self.context,
            timer=self.timer,
            adversary=build_adversary(config.training),
            mirror=build_mirror(config.training.optimizer),
        )

    def _evaluation(self, split: Split, *, mask: str, detail: bool) -> SplitEvaluation | None:
        if self.parts.folder.num_rows(split) == 0:
            return None
        return SplitEvaluation(
            self.parts.folder,
            self.parts.interactions,
            self.config.evaluation,
            split,
            mask=mask,
            rating=self.parts.objective.needs_rating,
            detail=detail,
            present=self.parts.world.present,
        )

    def _learning_rate(self, global_step: int) -> float:
        return self.config.training.optimizer.learning_rate * self.rate(global_step)

    def _progress(self, stage: str, epoch: int, done: int, start: float, *, total: int | None = None) -> None:
        total = self.rows_per_epoch if total is None else total
        done = min(done, total)
        seconds = max(time.perf_counter() - start, 1e-9)
        self.context.emit(Progress(stage=stage, epoch=epoch, done=done, total=total, rate=done / seconds))

    def _reporter(self, split: str, epoch: int, start: float) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(split, epoch, done, start, total=total)

    def _warn(self, message: str) -> None:
        self.context.emit(Note(message=message, level="warning"))


def example_of(ranker: Ranker, folder: DatasetFolder, interactions: Relation) -> tuple[int, list[tuple[int, float]]]:
    """Recommendations for the most active user, so that a person can look at some."""
    user = int(np.diff(interactions.indptr[: folder.num_users + 1]).argmax())
    best = rank(ranker, np.array([user]), mask=pairs_of(folder, ["train"]), k_max=EXAMPLE_ITEMS)
    pairs = zip(best.items[0].tolist(), best.scores[0].tolist(), strict=True)
    return user, [(item, score) for item, score in pairs if item >= 0]
