"""One training step: batch → seeds → neighbourhoods → rows → loss → gradients → update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from braidrec.data.delivery import Rows
from braidrec.data.negatives import NegativeSampler
from braidrec.data.randomness import generator_for, seed_for
from braidrec.errors import DivergedError
from braidrec.graph.neighbourhood import HopSpec, NeighbourhoodSource
from braidrec.graph.relation import Relation
from braidrec.models.contract import (
    Batch,
    Encoded,
    FetchFeatures,
    Inputs,
    LooksAtHistories,
    LossTerm,
    Recommender,
    StepContext,
)
from braidrec.objectives.contract import RowLoss
from braidrec.objectives.gather import gather_among
from braidrec.objectives.regulariser import half_squared_norm
from braidrec.training.adversary import Adversary, Watch
from braidrec.training.context import WorkerContext
from braidrec.training.mirror import MirrorGradient
from braidrec.training.optimizers import clip_gradients
from braidrec.training.tables import Table
from braidrec.training.timing import PhaseTimer


@dataclass(frozen=True, kw_only=True)
class Position:
    """Where in the run a step is. Every random number of the step is a function of it, the seed and the rank."""

    epoch: int
    step: int
    global_step: int


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Sums over the rows of all ranks.

    Attributes:
        losses: `[T]` the terms `TrainStep.term_names`, each to be divided by
        weights: `[T]`. The second is the number of interactions.
        noticed: `[1]` ranks that were told that they may soon be gone.
        input_nodes: rows that this rank fetched.
    """

    losses: Tensor
    weights: Tensor
    noticed: Tensor
    input_nodes: int

    def on_cpu(self) -> tuple[Tensor, Tensor, bool]:
        """Losses and weights in double precision, and whether any rank was: brought there together, for each way from
        a GPU is waited for."""
        told = torch.cat([self.losses, self.weights, self.noticed]).double().cpu()
        return told[: len(self.losses)], told[len(self.losses) : -1], bool(told[-1])


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A batch with all that is drawn for it.

    Attributes:
        places: where each of `batch.nodes()` stands among the seeds.
    """

    batch: Batch
    inputs: Inputs
    places: Tensor


class TrainStep:
    """Computes steps. Everything it needs is given; it keeps no state but the parameters that it updates."""

    def __init__(
        self,
        *,
        model: Recommender,
        tables: Mapping[str, Table],
        objective: RowLoss,
        regulariser: float,
        source: NeighbourhoodSource,
        chains: Mapping[str, Sequence[HopSpec]],
        negatives: NegativeSampler | None,
        per_positive: int,
        exclude_from: Mapping[str, Relation],
        num_users: int,
        num_items: int,
        features: FetchFeatures,
        cold: Tensor | None,
        optimizers: Sequence[torch.optim.Optimizer],
        gradient_clip: float | None,
        seed: int,
        context: WorkerContext,
        timer: PhaseTimer,
        adversary: Adversary | None = None,
        mirror: MirrorGradient | None = None,
    ) -> None:
        self.model, self.tables, self.objective, self.regulariser = model, tables, objective, regulariser
        self.source, self.chains = source, chains
        self.negatives, self.per_positive = negatives, per_positive
        self.exclude_from = exclude_from
        self.num_users, self.num_items, self.features, self.cold = num_users, num_items, features, cold
        self.adversary, self.mirror = adversary, mirror
        self.term_names = ("loss", "regulariser", *model.term_names, *(["adversarial"] if adversary else []))
        self.gather = gather_among(context)
        self.optimizers, self.gradient_clip = optimizers, gradient_clip
        self.seed, self.context, self.timer = seed, context, timer
        self.own_parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
        self.running_means = running_means(model) if isinstance(model, nn.Module) else []
        self.dealt_out = [table.weight for table in tables.values() if table.dealt_out]
        whole = [table.weight for table in tables.values() if not table.dealt_out]
        self.whole_parameters = [*whole, *self.own_parameters]

    def run(self, rows: Rows, at: Position, prepared: Prepared | None = None) -> StepResult:
        """Train on one batch of this rank.

        Args:
            prepared: what `prepare` made of the batch, if it has been called.
        Raises:
            DivergedError: a loss term is NaN or infinite; raised before the update, naming step and term.
        """
        if prepared is None:
            with self.timer.phase("sampling"):
                prepared = self.prepare(rows, at)
        batch, inputs, places = prepared.batch, prepared.inputs, prepared.places
        factors = (1.0,) if self.mirror is None else self.mirror.factors(at.step)
        results = [self._update(batch, inputs, places, at, factor) for factor in factors]
        return results[0]

    def prepare(self, rows: Rows, at: Position) -> Prepared:
        """Draw negatives and neighbourhoods. It depends on no parameter, and on no other step."""
        batch = self.batch(rows, at)
        seeds, places = torch.unique(batch.nodes(self.num_users), return_inverse=True)
        return Prepared(batch=batch, inputs=self.inputs(batch, seeds, at), places=places)

    @property
    def prepares_alone(self) -> bool:
        """Whether `prepare` does without the other ranks, and so may run beside what they do together."""
        return self.context.world_size == 1 or not self.exclude_from

    def _update(self, batch: Batch, inputs: Inputs, places: Tensor, at: Position, factor: float) -> StepResult:
        """Losses and gradients of the parameters as they stand, and an update by `factor` times the gradients."""
        with self.timer.phase("forward_backward"):
            total, sums, over, noticed = self._total(batch, inputs, places, at)
            (factor * total).backward()  # type: ignore[no-untyped-call]
        with self.timer.phase("communication"):
            for table in self.tables.values():
                table.collect(self.context)
            self._reduce_own_gradients()
            self._average_running_means()
        with self.timer.phase("optimizer"):
            if self.gradient_clip is not None:
                clip_gradients(
                    self.whole_parameters, self.gradient_clip, dealt_out=self.dealt_out, total=self.context.all_reduce
                )
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        return StepResult(losses=sums, weights=over, noticed=noticed, input_nodes=self._input_nodes(inputs))

    def _total(
        self, batch: Batch, inputs: Inputs, places: Tensor, at: Position
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """This rank's part of the loss, and over all ranks `[T]` sums and weights, and how many were noticed."""
        attacked = self.adversary is not None and self.adversary.is_active(at.epoch)
        watch = Watch(inputs, self.adversary.target) if self.adversary is not None and attacked else None
        terms, sums, over, noticed = self._reduced(batch, inputs if watch is None else watch.inputs, places, at)
        total = terms.sum()
        if self.adversary is None:
            return total, sums, over, noticed
        value = weight = sums.new_zeros(1)
        if watch is not None:
            against = self.adversary.attack(_without_regulariser(terms), watch, self.context)
            harder, harder_sums, harder_over, _ = self._reduced(batch, against, places, at)
            total = total + self.adversary.weight * _without_regulariser(harder)
            mean = _without_regulariser(harder_sums / harder_over.clamp(min=1e-12))
            value, weight = (self.adversary.weight * mean * over[0]).reshape(1), over[:1]
        return total, torch.cat([sums, value]), torch.cat([over, weight]), noticed

    def _reduced(
        self, batch: Batch, inputs: Inputs, places: Tensor, at: Position
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`[T]` this rank's parts of the terms, whose sum over all ranks are their means; over all ranks `[T]` sums,
        `[T]` weights and `[1]` how many were noticed."""
        seed_device(self.context.device, seed_for(self.seed, "model", at.epoch, at.step, self.context.rank))
        losses, weights = self.losses(batch, inputs, places, at)
        # One collective for all scalars. A rank's NaN reaches every sum, so that all ranks stop at the same step.
        told = losses.new_full((1,), float(self.context.noticed()))
        totals = self.context.all_reduce(torch.cat([losses.detach(), weights.to(losses.dtype), told]))
        sums, over, noticed = torch.split(totals, [len(losses), len(losses), 1])
        self._refuse_nan(sums, at)
        return losses / over.clamp(min=1e-12), sums, over, noticed

    def _input_nodes(self, inputs: Inputs) -> int:
        every = self.num_users + self.num_items
        nodes = [neighbourhood.input_nodes for neighbourhood in inputs.neighbourhoods.values()]
        return sum(every if rows is None else len(rows) for rows in nodes)

    def batch(self, rows: Rows, at: Position) -> Batch:
        """Add negatives and move to the device."""
        drawn = None
        if self.negatives is not None:
            rng = generator_for(self.seed, "negatives", at.epoch, at.step, self.context.rank)
            drawn = torch.from_numpy(self.negatives.draw(rows["user"], self.per_positive, rng)).to(self.context.device)
        device = self.context.device
        real = torch.from_numpy(rows["real"]).to(device)
        weight = real * torch.from_numpy(rows["weight"]).to(device) if "weight" in rows else real
        return Batch(
            users=torch.from_numpy(rows["user"]).to(device),
            items=torch.from_numpy(rows["item"]).to(device),
            negatives=drawn,
            real=real,
            weight=weight,
            rating=torch.from_numpy(rows["rating"]).to(device) if "rating" in rows else None,
        )

    def inputs(self, batch: Batch, seeds: Tensor, at: Position) -> Inputs:
        """Neighbourhoods of the seeds, and where to get the rows of their input nodes."""
        exclude = {name: self._target_edges(batch, relation) for name, relation in self.exclude_from.items()}
        neighbourhoods = {
            name: self.source.neighbourhood(chain, seeds, step_seed=self._draw_seed(name, at), exclude=exclude)
            for name, chain in self.chains.items()
        }
        return Inputs(
            seeds=seeds,
            num_users=self.num_users,
            num_items=self.num_items,
            neighbourhoods=neighbourhoods,
            table=lambda name, nodes: self.tables[name].fetch(nodes),
            features=self.features,
            cold=self.cold,
        )

    def _draw_seed(self, chain: str, at: Position) -> int:
        """Of what is drawn for a chain; to make one takes longer than a small batch's neighbourhood in full."""
        if not self.source.draws:
            return 0
        return seed_for(self.seed, f"neighbourhood {chain}", at.epoch, at.step, self.context.rank)

    def losses(self, batch: Batch, inputs: Inputs, places: Tensor, at: Position) -> tuple[Tensor, Tensor]:
        """`[T]` sums and `[T]` weights of this rank: the rows' losses, λ times their regularisers, the model's terms.

        Args:
            places: where each of `batch.nodes()` stands among the seeds.
        """
        encoded = self.model.encode(inputs)
        users, items, others = batch.split(encoded.vectors.index_select(0, places))
        if isinstance(self.model, LooksAtHistories):
            users = self.model.users_of_rows(users, inputs, batch)
        loss = (self.objective.rows(users, items, others, batch) * batch.weight).sum()
        shrinking = loss.new_zeros(())
        if self.regulariser:
            occurrences = batch.real.new_zeros(len(encoded.ego)).index_add_(0, places, batch.real_nodes())
            shrinking = self.regulariser * half_squared_norm(encoded.ego, occurrences)
        sums = [loss, shrinking]
        weights = [batch.weight.sum(), batch.real.sum()]
        if self.model.term_names:
            terms = self._terms(encoded, inputs, batch, places, at)
            sums += [term.total * term.coefficient for term in terms]
            weights += [term.weight for term in terms]
        return torch.stack(sums), torch.stack([weight.detach().to(batch.weight.dtype) for weight in weights])

    def _terms(self, encoded: Encoded, inputs: Inputs, batch: Batch, places: Tensor, at: Position) -> list[LossTerm]:
        pairs = 2 * batch.size  # users and positive items stand before the negatives
        held = batch.real.new_zeros(len(encoded.ego)).index_add_(0, places[:pairs], batch.real.repeat(2)) > 0
        weight = held.to(batch.real.dtype)
        if self.context.world_size > 1:
            assert inputs.seeds is not None
            weight = weight * self._is_first_holder(inputs.seeds, held).to(weight.dtype)
        step = StepContext(
            batch=batch,
            places=places,
            seed_weight=weight,
            gather=self.gather,
            epoch=at.epoch,
            global_step=at.global_step,
        )
        found = self.model.terms(encoded, inputs, step)
        return [found[name] for name in self.model.term_names]

    def _is_first_holder(self, seeds: Tensor, real: Tensor) -> Tensor:
        """`[num_seeds]` whether no rank before this one has the seed in its batch."""
        own = torch.full_like(seeds, self.context.rank)[real]
        nodes, ranks = self.context.all_gather_rows(seeds[real]), self.context.all_gather_rows(own)
        first = torch.full((self.num_users + self.num_items,), self.context.world_size, device=seeds.device)
        first.scatter_reduce_(0, nodes, ranks, "amin")
        return first[seeds] == self.context.rank

    def _target_edges(self, batch: Batch, relation: Relation) -> Tensor:
        real = batch.real.bool()  # padding looks like user 0 and item 0, whose edge stays
        users = batch.users[real].cpu().numpy()
        items = batch.items[real].cpu().numpy() + self.num_users
        both = [relation.edge_ids(users, items), relation.edge_ids(items, users)]
        edges = np.unique(np.concatenate(both))
        own = torch.from_numpy(edges[edges >= 0]).to(self.context.device)
        # The targets of all ranks: what a batch may see does not depend on how many share it.
        return self.context.all_gather_rows(own) if self.context.world_size > 1 else own

    def _refuse_nan(self, losses: Tensor, at: Position) -> None:
        if bool(torch.isfinite(losses).all()):
            return
        named = zip(self.term_names, losses, strict=False)  # the adversary's comes last and is made of the others
        bad = [f"{name}={float(value)}" for name, value in named if not value.isfinite()]
        raise DivergedError(
            f"epoch {at.epoch}, step {at.step}: {', '.join(bad)} before the update; "
            "try a lower training.optimizer.learning_rate or set training.optimizer.gradient_clip"
        )

    def _average_running_means(self) -> None:
        """Each rank has normalised its own rows. What they keep for evaluation is the mean, the same on all."""
        if self.context.world_size == 1 or not self.running_means:
            return
        flat = self.context.all_reduce(torch.cat([buffer.reshape(-1) for buffer in self.running_means]))
        flat = flat / self.context.world_size
        sizes = [buffer.numel() for buffer in self.running_means]
        for buffer, values in zip(self.running_means, torch.split(flat, sizes), strict=True):
            buffer.copy_(values.view_as(buffer))

    def _reduce_own_gradients(self) -> None:
        if self.context.world_size == 1 or not self.own_parameters:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.own_parameters]
        flat = self.context.all_reduce(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for parameter, values in zip(
            self.own_parameters, torch.split(flat, [p.numel() for p in self.own_parameters]), strict=True
        ):
            parameter.grad = values.view_as(parameter)


def running_means(model: nn.Module) -> list[Tensor]:
    """What batch normalisation keeps of the batches that it saw, which no gradient changes."""
    normalisations = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    kept = [(module.running_mean, module.running_var) for module in normalisations]
    return [buffer for pair in kept for buffer in pair if buffer is not None]


def _without_regulariser(terms: Tensor) -> Tensor:
    """The sum of `[T]` terms in the order of `TrainStep.term_names`, but for the second."""
    return terms[0] + terms[2:].sum()


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generators that a model on `device` draws from. On a CPU that spares `torch.manual_seed` the visit to
    every kind of accelerator, which costs more than a small step's loss."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
