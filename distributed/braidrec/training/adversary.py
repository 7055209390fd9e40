"""Adversarial training: the rows that a model reads are moved to where its loss rises, and it learns there too."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from braidrec.models.contract import Inputs
from braidrec.objectives.cosine import directions
from braidrec.training.context import Collectives

Target = Literal["features", "embeddings"]


@dataclass(frozen=True, kw_only=True)
class Read:
    """Rows that a model read in a forward pass.

    Attributes:
        nodes: indices of the rows, as they were asked for; None: all in order.
        rows: `[n, width]`, in autograd.
    """

    nodes: Tensor | None
    rows: Tensor


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Δ of one modality or table.

    Attributes:
        nodes: `[k]` indices in increasing order whose rows are moved; None: `delta` has a row for each.
        delta: `[k, width]`.
    """

    nodes: Tensor | None
    delta: Tensor

    def at(self, wanted: Tensor | None) -> Tensor:
        """`[n, width]` of the rows `wanted` (None: all in order), zeros where nothing is moved."""
        if self.nodes is None:
            return self.delta if wanted is None else self.delta.index_select(0, wanted)
        assert wanted is not None, "all rows are asked for where only some were before"
        if not len(self.nodes):
            return self.delta.new_zeros(len(wanted), self.delta.shape[1])
        places = torch.searchsorted(self.nodes, wanted).clamp(max=len(self.nodes) - 1)
        moved = self.nodes.index_select(0, places) == wanted
        return self.delta.index_select(0, places).masked_fill(~moved.unsqueeze(-1), 0.0)


class Watch:
    """Notes every row of the target that a model reads, so that the loss can be differentiated with respect to it.

    Args:
        inputs: what the model would compute from.
        target: "features" or "embeddings".
    Attributes:
        given: `inputs`.
        inputs: what it is to compute from instead; the values are the same.
        reads: by modality or table.
    """

    def __init__(self, inputs: Inputs, target: Target) -> None:
        self.reads: dict[str, list[Read]] = {}
        self.given = inputs
        if target == "features":
            self.inputs = replace(inputs, features=self._features)
        else:
            self.inputs = replace(inputs, table=self._table)

    def _features(self, modality: str, items: Tensor | None) -> tuple[Tensor, Tensor]:
        values, present = self.given.features(modality, items)
        if not _is_of_items(modality):
            return values, present
        rows = values.detach().requires_grad_()
        self.reads.setdefault(modality, []).append(Read(nodes=items, rows=rows))
        return rows, present

    def _table(self, name: str, nodes: Tensor | None) -> Tensor:
        rows = self.given.table(name, nodes)
        self.reads.setdefault(name, []).append(Read(nodes=nodes, rows=rows))
        return rows


class Adversary:
    """Perturbations that raise the loss (Tang et al., AMR, IEEE TKDE 2020; on embeddings: He et al., APR, SIGIR 2018).

        Δ_i = ε Γ_i / ‖Γ_i‖₂,    Γ_i = ∂L/∂c_i,    loss: L(θ) + λ L(θ, Δ) + regulariser

    c_i is the row that is attacked: an item's feature vector in a modality, or a row of an embedding table. Γ_i is
    summed over everything that reads the row in a step, positives and negatives, of all ranks; Δ gets no gradient. L is
    the loss of the rows and the model's own terms, without the regulariser. A row with Γ_i = 0 and a modality that an
    item lacks stay where they are.

    Args:
        target: "features" or "embeddings".
        epsilon: ε, in the units of the rows.
        weight: λ.
        start_epoch: the first epoch with it, from 1; those before are plain.
    """

    def __init__(self, *, target: Target, epsilon: float, weight: float = 1.0, start_epoch: int = 1) -> None:
        self.target, self.epsilon, self.weight, self.start_epoch = target, epsilon, weight, start_epoch

    def is_active(self, epoch: int) -> bool:
        """Whether it takes part in an epoch."""
        return epoch >= self.start_epoch

    def attack(self, loss: Tensor, watch: Watch, context: Collectives) -> Inputs:
        """The inputs with the target's rows moved. The graph of `loss` is kept. All ranks call it.

        Args:
            loss: scalar, this rank's part of L, computed from `watch.inputs`.
        """
        # As they are now: what a model makes again for gradients reads its rows again, in the middle of what follows.
        reads = {name: tuple(watch.reads[name]) for name in sorted(watch.reads)}
        rows = [read.rows for of_name in reads.values() for read in of_name]
        of_reads = iter(torch.autograd.grad(loss, rows, retain_graph=True, allow_unused=True))
        found = {}
        for name, of_name in reads.items():
            pairs = [(read, next(of_reads)) for read in of_name]
            slopes = _summed(pairs, context)
            found[name] = replace(slopes, delta=self.epsilon * directions(slopes.delta))
        return moved(watch.given, self.target, found)


def moved(inputs: Inputs, target: Target, by: dict[str, Perturbation]) -> Inputs:
    """The inputs with rows of the target moved; a modality stays absent where it is."""

    def features(modality: str, items: Tensor | None) -> tuple[Tensor, Tensor]:
        values, present = inputs.features(modality, items)
        if modality not in by:
            return values, present
        delta = by[modality].at(items).to(values.dtype)
        return values + delta.masked_fill(~present.unsqueeze(-1), 0.0), present

    def table(name: str, nodes: Tensor | None) -> Tensor:
        return inputs.table(name, nodes) + by[name].at(nodes)

    return replace(inputs, features=features) if target == "features" else replace(inputs, table=table)


def _is_of_items(modality: str) -> bool:
    """Vectors of users and numbers of components, which are not attacked, have a slash in their names."""
    return "/" not in modality


def _summed(pairs: Iterable[tuple[Read, Tensor | None]], context: Collectives) -> Perturbation:
    """Γ of one modality or table: summed over its reads and over the ranks, which read alike."""
    read = [(one.nodes, torch.zeros_like(one.rows) if slope is None else slope) for one, slope in pairs]
    whole = [slopes for nodes, slopes in read if nodes is None]
    if whole:
        total = torch.stack(whole).sum(0)
        for nodes, slopes in read:
            if nodes is not None:
                total.index_add_(0, nodes, slopes)
        return Perturbation(nodes=None, delta=context.all_reduce(total))
    nodes = context.all_gather_rows(torch.cat([nodes for nodes, _ in read if nodes is not None]))
    slopes = context.all_gather_rows(torch.cat([slopes for _, slopes in read]))
    distinct, places = torch.unique(nodes, return_inverse=True)
    return Perturbation(
        nodes=distinct, delta=slopes.new_zeros(len(distinct), slopes.shape[1]).index_add_(0, places, slopes)
    )
