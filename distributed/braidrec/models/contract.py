"""What a model is to the training loop, to evaluation and to export."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from braidrec.graph.hop import Neighbourhood


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """Embedding rows that a model wants, one for every node of the joint space (users, then items).

    Rows start as N(0, `std`²) except their last `zero_columns`, which start at zero (biases).
    """

    width: int
    std: float
    zero_columns: int = 0

    def initialise(self, num_rows: int, generator: torch.Generator) -> Tensor:
        """`[num_rows, width]` fp32, a function of the generator's seed alone."""
        rows = torch.randn(num_rows, self.width, generator=generator) * self.std
        if self.zero_columns:
            rows[:, -self.zero_columns :] = 0.0
        return rows


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a model sees: for every branch that it declared, the neighbourhood of the seeds and its input rows.

    Attributes:
        seeds: `[num_seeds]` distinct nodes, or None for all nodes in order.
        num_users: nodes below are users, the others items.
        neighbourhoods: by branch.
        rows: by branch, then by table: `[num_input_nodes, width]`.
    """

    seeds: Tensor | None
    num_users: int
    neighbourhoods: Mapping[str, Neighbourhood]
    rows: Mapping[str, Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A model's output for the seeds.

    Attributes:
        vectors: `[num_seeds, D]`. The score of a user and an item is the inner product of their vectors.
        ego: `[num_seeds, d]` the rows before any propagation, which the regulariser shrinks.
    """

    vectors: Tensor
    ego: Tensor


class Recommender(Protocol):
    """A model. Distribution, sampling and storage of tables are applied from outside."""

    def tables(self) -> Mapping[str, TableSpec]:
        """The embedding tables that it wants, by name."""
        ...

    def branches(self) -> Mapping[str, tuple[str, ...]]:
        """The chains of relations that it propagates over, by name, each in the order of propagation.

        A model without propagation declares one branch with an empty chain: its input rows are the seeds' own.
        """
        ...

    def encode(self, inputs: Inputs) -> Encoded:
        """Representations of the seeds."""
        ...


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
