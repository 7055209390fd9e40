"""What a model is to the training loop, to evaluation and to export."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from braidrec.graph.hop import Neighbourhood
from braidrec.graph.relation import Relation
from braidrec.models.sides import Sides

Side = Literal["nodes", "users", "items"]


ROWS_DRAWN_AT_ONCE, ROWS_DRAWN_TOGETHER = 65_536, 16
"""torch draws normal numbers sixteen at a time and its last sixteen anew: cut at multiples of sixteen, with at least as
many left, drawing in parts gives what drawing at once gives (tested)."""


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """Trainable embedding rows that a model wants.

    Rows start as N(0, `std`²) except their last `zero_columns`, which start at zero (biases).

    Attributes:
        uniform: they start as U(0, `std`) instead.
        side: one row for every user, for every item, or for every node of the joint space (users, then items).
        starts_as: a modality, whose vectors are the initial rows instead; None: none.
        every_row: each step looks at all rows, so that its gradient is as large as the table.
    """

    width: int
    std: float
    zero_columns: int = 0
    uniform: bool = False
    side: Side = "nodes"
    starts_as: str | None = None
    every_row: bool = False

    def num_rows(self, num_users: int, num_items: int) -> int:
        """How many rows the table has."""
        return {"nodes": num_users + num_items, "users": num_users, "items": num_items}[self.side]

    def initialise(self, num_rows: int, generator: torch.Generator, held: range | None = None) -> Tensor:
        """`[num_rows, width]` fp32, a function of the generator's seed alone; of them the rows `held`, None: all.

        Whoever holds a part draws what comes before it too, some rows at a time, and forgets it.
        """
        held = range(num_rows) if held is None else held
        rows = torch.empty(len(held), self.width)
        start = 0
        while start < held.stop:
            stop = start + ROWS_DRAWN_AT_ONCE
            if stop + ROWS_DRAWN_TOGETHER > num_rows:
                stop = num_rows
            draw = torch.rand if self.uniform else torch.randn
            drawn = draw(stop - start, self.width, generator=generator).mul_(self.std)
            first, last = max(start, held.start), min(stop, held.stop)
            if first < last:
                rows[first - held.start : last - held.start] = drawn[first - start : last - start]
            start = stop
        if self.zero_columns:
            rows[:, -self.zero_columns :] = 0.0
        return rows


@dataclass(frozen=True, kw_only=True)
class Branch:
    """A chain of relations that a model propagates over, each in the order of propagation; () is no propagation.

    Attributes:
        chain: what evaluation propagates over; None for a view that only training looks at.
        training: the same while training, where it is another one (perturbed, pruned); None: as `chain`.
        every_neighbour: its hops take all neighbours of a node also where those of others are sampled.
    """

    chain: tuple[str, ...] | None
    training: tuple[str, ...] | None = None
    every_neighbour: bool = False

    def relations(self, *, training: bool) -> tuple[str, ...] | None:
        """The chain that is to be built; None: none."""
        return self.training if training and self.training is not None else self.chain


FetchTable = Callable[[str, Tensor | None], Tensor]
FetchFeatures = Callable[[str, Tensor | None], tuple[Tensor, Tensor]]


def _no_features(modality: str, items: Tensor | None) -> tuple[Tensor, Tensor]:
    raise KeyError(f"no features of {modality!r} were given to the model")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a model computes from. It takes the rows that it needs, when it needs them.

    Attributes:
        seeds: `[num_seeds]` distinct nodes in increasing order, or None for all nodes.
        num_users: nodes below are users, the others items.
        num_items: how many these are.
        neighbourhoods: by branch, ending at the seeds.
        table: `(name, indices)` → `[n, width]` rows of an embedding table that take part in autograd; indices count
            from 0 on the table's side, None stands for all rows in order.
        features: `(modality, items)` → `[n, F]` fp32 rows, zeros where the item lacks the modality, and `[n]` bool
            whether it has it.
        cold: `[num_items]` bool, items without train interactions.
    """

    seeds: Tensor | None
    num_users: int
    num_items: int
    neighbourhoods: Mapping[str, Neighbourhood]
    table: FetchTable
    features: FetchFeatures = _no_features
    cold: Tensor | None = None

    def sides(self, nodes: Tensor | None) -> Sides:
        """How the rows of `nodes` (None: all in order) fall to users and items."""
        return Sides.of(nodes, self.num_users, self.num_items)


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A model's output for the seeds.

    Attributes:
        vectors: `[num_seeds, D]`. The score of a user and an item is the inner product of their vectors.
        ego: `[num_seeds, d]` the rows before any propagation, which the regulariser shrinks.
        outputs: further representations `[num_seeds, …]` by name, which the model's own loss terms read.
    """

    vectors: Tensor
    ego: Tensor
    outputs: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Interactions of one step, with what the objective wants beside them. All `[B]` unless said otherwise.

    Attributes:
        users, items: int64 indices, each from 0 on.
        negatives: `[B, n]` int64 items, or None for objectives without negatives.
        real: fp32, 1 for an interaction and 0 for padding.
        weight: fp32 importance of a row, already 0 for padding.
        rating: fp32, or None.
    """

    users: Tensor
    items: Tensor
    negatives: Tensor | None
    real: Tensor
    weight: Tensor
    rating: Tensor | None = None

    @property
    def size(self) -> int:
        return len(self.users)

    def nodes(self, num_users: int) -> Tensor:
        """`[(2 + n) B]` users, items, then negatives row by row, as nodes of the joint space."""
        parts = [self.users, self.items + num_users]
        if self.negatives is not None:
            parts.append(self.negatives.reshape(-1) + num_users)
        return torch.cat(parts)

    def real_nodes(self) -> Tensor:
        """`[(2 + n) B]` in the order of `nodes`: 1 where the node stands in an interaction, 0 in padding."""
        parts = [self.real, self.real]
        if self.negatives is not None:
            parts.append(self.real.repeat_interleave(self.negatives.shape[1]))
        return torch.cat(parts)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """`[B, …]` users, `[B, …]` items and `[B, n, …]` negatives from rows in the order of `nodes`."""
        users, items, others = torch.split(rows, [self.size, self.size, len(rows) - 2 * self.size])
        if self.negatives is None:
            return users, items, None
        return users, items, others.reshape(*self.negatives.shape, *others.shape[1:])


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What a model's own loss terms may know of the step.

    Attributes:
        batch: the interactions of this rank.
        places: `[(2 + n) B]` where each of `batch.nodes()` stands among the seeds.
        seed_weight: `[num_seeds]` 1 on the first rank that holds the seed as user or positive item of a real row,
            otherwise 0: a sum over seeds weighted by it is a sum over the distinct such nodes of the global batch.
        gather: `[n, …]` rows of this rank → those of all ranks, differentiable.
        epoch: from 1.
        global_step: steps before this one, from 0.
    """

    batch: Batch
    places: Tensor
    seed_weight: Tensor
    gather: Callable[[Tensor], Tensor]
    epoch: int
    global_step: int = 0

    def rows(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values at the seeds → those of the batch's users, items and negatives."""
        return self.batch.split(values.index_select(0, self.places))


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """A summand of the loss: `coefficient · Σ_ranks total / Σ_ranks weight`.

    Attributes:
        total: scalar, this rank's sum.
        weight: scalar, what this rank's sum counts for (rows, nodes), without gradient.
    """

    total: Tensor
    weight: Tensor
    coefficient: float


class Recommender(Protocol):
    """A model. Distribution, sampling and storage of tables are applied from outside."""

    term_names: tuple[str, ...]
    """Names of its own loss terms, in a fixed order; () for a model that is trained by the objective alone."""

    def tables(self) -> Mapping[str, TableSpec]:
        """The embedding tables that it wants, by name."""
        ...

    def branches(self) -> Mapping[str, Branch]:
        """The chains of relations that it propagates over, by name.

        A model without propagation declares one branch with an empty chain: its input rows are the seeds' own.
        """
        ...

    def encode(self, inputs: Inputs) -> Encoded:
        """Representations of the seeds."""
        ...

    def terms(self, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        """Its own loss terms of one training step, `term_names`."""
        ...


@runtime_checkable
class LooksAtHistories(Protocol):
    """A model in which a user is also what he interacted with, so that a row of a batch must not show him its target.

    At evaluation, `encode` takes the whole history into a user's vector. While training, it leaves it to this.
    """

    def users_of_rows(self, users: Tensor, inputs: Inputs, batch: Batch) -> Tensor:
        """`[B, D]` vectors of the rows' users, each without the row's own positive in his history.

        Args:
            users: `[B, D]` what `encode` gave for them.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A score that is no inner product: `log Σ_k c_ik exp(⟨z_uk, h_i⟩ / τ)`.

    Attributes:
        components: K.
        dim: size d of each z and of h.
        temperature: τ.
    """

    components: int
    dim: int
    temperature: float


@runtime_checkable
class ScoresByMixture(Protocol):
    """A model whose vectors are, of a user, the K factors z one after the other, of an item h and then the K log c."""

    mixture: Mixture


@runtime_checkable
class LearnsRelations(Protocol):
    """A model that also makes relations that it propagates over, from its parameters."""

    def learned_relations(
        self, features: FetchFeatures, relations: Mapping[str, Relation], *, num_users: int
    ) -> Mapping[str, Relation]:
        """What to propagate over from now on, by name. Asked for before each epoch and before each evaluation.

        A function of the parameters, the features and the given relations alone, so that all ranks get the same.

        Args:
            features: as `Inputs.features`.
            relations: those that stay as they are.
            num_users: nodes below are users.
        """
        ...


@runtime_checkable
class PropagatesAhead(Protocol):
    """A model that can propagate a part of itself once instead of in every step, where that gives the same."""

    def propagate_ahead(self, inputs: Inputs, max_bytes: int) -> tuple[str, ...]:
        """Propagate what can be; from now on `branches()` and `encode` leave it out. Values and gradients stay.

        Args:
            inputs: of all nodes, over the chains of evaluation.
            max_bytes: what it may keep.
        Returns:
            names of the parts that were.
        """
        ...


class WithoutTerms:
    """Of a model that is trained by the objective alone."""

    term_names: tuple[str, ...] = ()

    def terms(self, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        """None."""
        return {}
