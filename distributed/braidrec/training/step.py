"""One training step: batch → seeds → neighbourhoods → rows → loss → gradients → update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from braidrec.data.delivery import Rows
from braidrec.data.negatives import NegativeSampler
from braidrec.data.randomness import generator_for, seed_for
from braidrec.errors import DivergedError
from braidrec.graph.neighbourhood import HopSpec, NeighbourhoodSource
from braidrec.graph.relation import Relation
from braidrec.models.contract import Batch, Inputs, Recommender
from braidrec.objectives.contract import RowLoss
from braidrec.objectives.regulariser import half_squared_norm
from braidrec.training.context import WorkerContext
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
        losses: `[2]` the terms `LOSS_TERMS`, each to be divided by
        weights: `[2]`.
        input_nodes: rows that this rank fetched.
    """

    losses: Tensor
    weights: Tensor
    input_nodes: int


LOSS_TERMS = ("loss", "regulariser")


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
        exclude_from: Relation | None,
        num_users: int,
        optimizers: Sequence[torch.optim.Optimizer],
        gradient_clip: float | None,
        seed: int,
        context: WorkerContext,
        timer: PhaseTimer,
    ) -> None:
        self.model, self.tables, self.objective, self.regulariser = model, tables, objective, regulariser
        self.source, self.chains = source, chains
        self.negatives, self.per_positive = negatives, per_positive
        self.exclude_from, self.num_users = exclude_from, num_users
        self.optimizers, self.gradient_clip = optimizers, gradient_clip
        self.seed, self.context, self.timer = seed, context, timer
        self.own_parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
        self.table_parameters = [
            p for table in tables.values() if isinstance(table, nn.Module) for p in table.parameters()
        ]

    def run(self, rows: Rows, at: Position) -> StepResult:
        """Train on one batch of this rank.

        Raises:
            DivergedError: a loss term is NaN or infinite; raised before the update, naming step and term.
        """
        with self.timer.phase("sampling"):
            batch = self.batch(rows, at)
            seeds, places = torch.unique(batch.nodes(self.num_users), return_inverse=True)
            inputs = self.inputs(batch, seeds, at)
        with self.timer.phase("forward_backward"):
            seed_device(self.context.device, seed_for(self.seed, "model", at.epoch, at.step, self.context.rank))
            losses = self.losses(batch, inputs, places)
            weights = torch.stack([batch.weight.sum(), batch.real.sum()])
            # One collective for all scalars. A rank's NaN reaches every sum, so that all ranks stop at the same step.
            totals = self.context.all_reduce(torch.cat([losses.detach(), weights.to(losses.dtype)]))
            self._refuse_nan(totals[:2], at)
            (losses / totals[2:].clamp(min=1e-12)).sum().backward()  # type: ignore[no-untyped-call]
        with self.timer.phase("communication"):
            for table in self.tables.values():
                table.collect(self.context)
            self._reduce_own_gradients()
        with self.timer.phase("optimizer"):
            if self.gradient_clip is not None:
                clip_gradients([*self.table_parameters, *self.own_parameters], self.gradient_clip)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        input_nodes = sum(len(rows) for tables in inputs.rows.values() for rows in tables.values())
        return StepResult(losses=totals[:2], weights=totals[2:], input_nodes=input_nodes)

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
        """Neighbourhoods of the seeds and the rows of their input nodes."""
        exclude = self._target_edges(batch) if self.exclude_from is not None else None
        where = (at.epoch, at.step, self.context.rank)
        neighbourhoods = {
            name: self.source.neighbourhood(
                chain, seeds, step_seed=seed_for(self.seed, f"neighbourhood {name}", *where), exclude=exclude
            )
            for name, chain in self.chains.items()
        }
        rows = {
            branch: {name: table.fetch(neighbourhood.input_nodes) for name, table in self.tables.items()}
            for branch, neighbourhood in neighbourhoods.items()
        }
        return Inputs(seeds=seeds, num_users=self.num_users, neighbourhoods=neighbourhoods, rows=rows)

    def losses(self, batch: Batch, inputs: Inputs, places: Tensor) -> Tensor:
        """`[2]`: the weighted sum of the rows' losses, and λ times the sum of their regularisers.

        Args:
            places: where each of `batch.nodes()` stands among the seeds.
        """
        encoded = self.model.encode(inputs)
        vectors = self._split(encoded.vectors.index_select(0, places), batch)
        loss = (self.objective.rows(*vectors, batch) * batch.weight).sum()
        occurrences = batch.real.new_zeros(len(encoded.ego)).index_add_(0, places, batch.real_nodes())
        return torch.stack([loss, self.regulariser * half_squared_norm(encoded.ego, occurrences)])

    def _split(self, rows: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        sizes = [batch.size, batch.size, len(rows) - 2 * batch.size]
        users, items, others = torch.split(rows, sizes)
        negatives = None if batch.negatives is None else others.view(*batch.negatives.shape, -1)
        return users, items, negatives

    def _target_edges(self, batch: Batch) -> Tensor:
        assert self.exclude_from is not None
        real = batch.real.bool()  # padding looks like user 0 and item 0, whose edge stays
        users = batch.users[real].cpu().numpy()
        items = batch.items[real].cpu().numpy() + self.num_users
        both = [self.exclude_from.edge_ids(users, items), self.exclude_from.edge_ids(items, users)]
        edges = np.unique(np.concatenate(both))
        return torch.from_numpy(edges[edges >= 0])

    def _refuse_nan(self, losses: Tensor, at: Position) -> None:
        if bool(torch.isfinite(losses).all()):
            return
        bad = [f"{name}={float(value)}" for name, value in zip(LOSS_TERMS, losses, strict=True) if not value.isfinite()]
        raise DivergedError(
            f"epoch {at.epoch}, step {at.step}: {', '.join(bad)} before the update; "
            "try a lower training.optimizer.learning_rate or set training.optimizer.gradient_clip"
        )

    def _reduce_own_gradients(self) -> None:
        if self.context.world_size == 1 or not self.own_parameters:
            return
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.own_parameters]
        flat = self.context.all_reduce(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        for parameter, values in zip(
            self.own_parameters, torch.split(flat, [p.numel() for p in self.own_parameters]), strict=True
        ):
            parameter.grad = values.view_as(parameter)


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generators that a model on `device` draws from. On a CPU that spares `torch.manual_seed` the visit to
    every kind of accelerator, which costs more than a small step's loss."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
