"""Vectors for those who have none, made before training. (Policies inside a model: `braidrec.models.missing`.)

    source table → mean, mean of the neighbours, or feature propagation → derived table with the absent rows filled

Presence stays what it was: a model can still tell who had the modality. A table whose absent rows are left alone is the
policy "zeros". Work on a graph goes a few dimensions at a time: memory does not grow with the length of the vectors.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from braidrec.features.table import FeatureTable, check_mask, derive_table, mask_digest
from braidrec.graph.hop import Hop
from braidrec.graph.kernels import choose_kernel
from braidrec.graph.relation import Relation

STRIPE_BYTES = 256 << 20
"""Memory of one `[num_nodes, dimensions]` fp32 matrix; about four of them are held."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The graph that a table's rows are nodes of.

    Attributes:
        relation: train interactions, or content neighbours. Never held-out interactions.
        first_node: the node of row 0: the number of users for items, 0 for users.
        device: where to compute.
    """

    relation: Relation
    first_node: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def hop(self) -> Hop:
        structure = self.relation.structure.to(self.device)
        return Hop(relation=self.relation, structure=structure, kernel=choose_kernel(self.device))

    def recipe(self) -> dict[str, Any]:
        """What identifies it."""
        relation = self.relation
        digest = hashlib.sha256(f"{relation.weights_are_final}".encode())
        for array in (relation.indptr, relation.indices, relation.weight):
            if array is not None:
                digest.update(str(array.dtype).encode() + np.ascontiguousarray(array).data)
        return {"relation": relation.name, "edges": digest.hexdigest(), "first_node": self.first_node}


def fill_with_mean(source: FeatureTable, *, fit_on: NDArray[np.bool_], cache: Path) -> FeatureTable:
    """Every absent row gets the mean of the present rows in train.

    Args:
        fit_on: `[num_rows]` bool: items that occur in train.
        cache: the node's cache folder.
    Raises:
        ValueError: no row in train is present.
    """
    check_mask("fit_on", fit_on, source.num_rows)

    def fill(values: NDArray[Any]) -> Mapping[str, Any]:
        _copy(source, values)
        values[~source.present] = _mean(source, fit_on)
        return {"filled": int((~source.present).sum())}

    return derive_table(source, cache, {"impute": "mean", "fitted_on": mask_digest(fit_on)}, fill)


def fill_with_neighbours(
    source: FeatureTable, surroundings: Surroundings, *, hops: int, fit_on: NDArray[np.bool_], cache: Path
) -> FeatureTable:
    """Every absent row gets the mean of its present neighbours, `Σ_j w_ij p_j x_j / Σ_j w_ij p_j`.

    p is presence and w_ij the number of ways (products of edge weights, where there are any) that lead from j to i in
    exactly `hops` steps. On train interactions two steps lead to the items of the same users, and w_ij is the number of
    users that items i and j share; on content neighbours one step does. A row without a present neighbour gets the mean
    of the present rows in train, as `fill_with_mean` would give it.

    Args:
        surroundings: the graph.
        hops: steps to a neighbour.
        fit_on: `[num_rows]` bool: items that occur in train.
        cache: the node's cache folder.
    Raises:
        ValueError: fewer than one hop, a graph of fewer nodes than rows, or no row in train that is present.
    """
    if hops < 1:
        raise ValueError(f"hops={hops}: a neighbour is at least 1 step away")
    check_mask("fit_on", fit_on, source.num_rows)
    _check_nodes(source, surroundings)

    def fill(values: NDArray[Any]) -> Mapping[str, Any]:
        hop = surroundings.hop()
        absent = np.flatnonzero(~source.present)
        places = torch.from_numpy(absent + surroundings.first_node).to(surroundings.device)
        ways = _walk(hop, _known(source, surroundings).unsqueeze(-1), hops)[places]
        alone = (ways == 0).squeeze(-1).cpu().numpy()
        _copy(source, values)
        for columns, h in _stripes(source, surroundings):
            mean = _walk(hop, h, hops)[places] / ways.clamp(min=torch.finfo(ways.dtype).tiny)
            values[absent, columns] = mean.cpu().numpy()
        if alone.any():
            values[absent[alone]] = _mean(source, fit_on)
        return {"filled": len(absent), "without_neighbours": int(alone.sum())}

    recipe = {"impute": "neighbours", "hops": hops, "fitted_on": mask_digest(fit_on), **surroundings.recipe()}
    return derive_table(source, cache, recipe, fill)


def fill_by_propagation(
    source: FeatureTable, surroundings: Surroundings, *, iterations: int = 40, cache: Path
) -> FeatureTable:
    """Feature propagation (Rossi et al., Learning on Graphs 2022).

    `X ← D^{-1/2} A D^{-1/2} X`, then the known rows are set back to what they are; from zeros, `iterations` times. It
    converges to the X of least Dirichlet energy with the known rows given. Nodes of the other side (users, on train
    interactions) are unknown rows like any other. A row that no known one reaches within the iterations stays zero, and
    is counted in the provenance.

    Args:
        surroundings: the graph.
        iterations: 40 in the paper.
        cache: the node's cache folder.
    Raises:
        ValueError: fewer than one iteration, or a graph of fewer nodes than rows.
    """
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: at least 1 is needed to fill anything")
    _check_nodes(source, surroundings)

    def fill(values: NDArray[Any]) -> Mapping[str, Any]:
        hop = surroundings.hop()
        absent = np.flatnonzero(~source.present)
        places = torch.from_numpy(absent + surroundings.first_node).to(surroundings.device)
        known = _known(source, surroundings).bool().unsqueeze(-1)
        _copy(source, values)
        for columns, h in _stripes(source, surroundings):
            x = h
            for _ in range(iterations):
                x = torch.where(known, h, hop.aggregate(x))
            values[absent, columns] = x[places].cpu().numpy()
        unreached = ~_reached(hop, known, iterations)[places]
        return {"filled": len(absent), "unreached": int(unreached.sum())}

    recipe = {"impute": "propagation", "iterations": iterations, **surroundings.recipe()}
    return derive_table(source, cache, recipe, fill)


def _walk(hop: Hop, h: Tensor, hops: int) -> Tensor:
    """Sums over all ways of `hops` steps."""
    for _ in range(hops):
        h = hop.aggregate(h, normalise="sum")
    return h


def _reached(hop: Hop, known: Tensor, iterations: int) -> Tensor:
    """`[num_nodes]` bool: nodes that are known or that a known one leads to."""
    reached = known
    for _ in range(iterations):
        further = reached | (hop.aggregate(reached.float(), normalise="sum") > 0)
        if torch.equal(further, reached):
            break
        reached = further
    return reached.squeeze(-1)


def _known(source: FeatureTable, surroundings: Surroundings) -> Tensor:
    """`[num_nodes]` fp32: 1 where a vector is present."""
    known = torch.zeros(surroundings.relation.num_nodes)
    known[surroundings.first_node + torch.from_numpy(np.flatnonzero(source.present))] = 1.0
    return known.to(surroundings.device)


def _stripes(source: FeatureTable, surroundings: Surroundings) -> Iterator[tuple[slice, Tensor]]:
    """A few dimensions at a time: which, and `[num_nodes, dimensions]` fp32 of the present rows, zero elsewhere."""
    num_nodes = surroundings.relation.num_nodes
    width = max(1, STRIPE_BYTES // (4 * num_nodes))
    present = np.flatnonzero(source.present)
    for start in range(0, source.dim, width):
        columns = slice(start, min(start + width, source.dim))
        h = torch.zeros(num_nodes, columns.stop - columns.start)
        h[surroundings.first_node + torch.from_numpy(present)] = torch.from_numpy(source.read(present, columns))
        yield columns, h.to(surroundings.device)


def _mean(source: FeatureTable, fit_on: NDArray[np.bool_]) -> NDArray[np.float32]:
    rows = np.flatnonzero(source.present & fit_on)
    if not len(rows):
        raise ValueError(
            f"fit_on: of its {int(fit_on.sum())} rows none has modality {source.name!r} "
            f"({int(source.present.sum())} rows have it), so there is no mean to fill in"
        )
    total = np.zeros(source.dim)
    for start in range(0, len(rows), source.rows_per_block):
        total += source.read(rows[start : start + source.rows_per_block]).sum(0, dtype=np.float64)
    mean: NDArray[np.float32] = (total / len(rows)).astype(np.float32)
    return mean


def _copy(source: FeatureTable, values: NDArray[Any]) -> None:
    """The present rows as they are."""
    for start in range(0, source.num_rows, source.rows_per_block):
        stretch = slice(start, start + source.rows_per_block)
        values[stretch] = np.where(source.present[stretch, None], source.read(stretch), 0.0)


def _check_nodes(source: FeatureTable, surroundings: Surroundings) -> None:
    num_nodes, first = surroundings.relation.num_nodes, surroundings.first_node
    if not 0 <= first <= num_nodes - source.num_rows:
        raise ValueError(
            f"first_node={first}: rows 0…{source.num_rows - 1} of modality {source.name!r} are then nodes "
            f"{first}…{first + source.num_rows - 1}, but relation {surroundings.relation.name!r} has nodes "
            f"0…{num_nodes - 1}"
        )
