"""A named graph in the joint node space: users are nodes `0 .. U - 1`, items are nodes `U .. U + I - 1`."""

from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray
from torch import Tensor

from braidrec.graph.dgl_import import dgl
from braidrec.graph.structure import Structure

INTERACTIONS = "interactions"
PRUNED = f"{INTERACTIONS}~pruned"
"""The view of the interactions that degree-sensitive pruning leaves."""
KEYED_EDGES = 1 << 22
"""Up to so many edges each process keeps 8 bytes an edge to find them faster."""
TARGETS = f"{INTERACTIONS}~targets"
"""The view of the interactions that the targets of a bootstrap come over."""


class Relation:
    """A graph over all nodes, stored by destination (CSC), with the degrees that normalise it.

    An edge's id is its position in `indices`. The in-neighbours of a node are sorted and distinct. For the relation
    `interactions` every interaction is there in both directions, so the relation is symmetric.

    Args:
        name: how encoders ask for it.
        indptr: `[num_nodes + 1]` int32 or int64.
        indices: `[num_edges]` of the same type. Both may be memory-mapped and are then shared between processes.
        symmetric: every edge has its reverse, of the same weight.
        weight: `[num_edges]` fp32 not below zero, fixed for every edge; None is 1. Sums along the edges take them in,
            and the degrees that normalise are then sums of weights.
        weights_are_final: the weights are normalised already (or must not be): every normalisation is the plain
            weighted sum.
        inverse_sqrt_in_degree: `[num_nodes]` fp32, where it is known already; it may be mapped as well.
    """

    def __init__(
        self,
        name: str,
        indptr: NDArray[Any],
        indices: NDArray[Any],
        *,
        symmetric: bool,
        weight: NDArray[np.float32] | None = None,
        weights_are_final: bool = False,
        inverse_sqrt_in_degree: NDArray[np.float32] | None = None,
    ) -> None:
        assert indptr.dtype == indices.dtype
        assert weight is None or (weight.dtype == np.float32 and weight.shape == indices.shape)
        assert weight is not None or not weights_are_final
        self.name = name
        # As plain arrays over the same memory: numpy's memmap type makes every small index operation slow.
        self.indptr = np.asarray(indptr)
        self.indices = np.asarray(indices)
        self.symmetric = symmetric
        self.weight = None if weight is None else np.asarray(weight)
        self.weights_are_final = weights_are_final
        self._known_factors = inverse_sqrt_in_degree

    @property
    def num_nodes(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_edges(self) -> int:
        return len(self.indices)

    @cached_property
    def structure(self) -> Structure:
        """The whole relation as one step from all nodes to all nodes, in the narrowest integer type that fits."""
        indptr, indices = torch.from_numpy(self.indptr), torch.from_numpy(self.indices)
        weight = None if self.weight is None else torch.from_numpy(self.weight)
        return Structure(indptr, indices, self.num_nodes, symmetric=self.symmetric, weight=weight)

    @property
    def in_degree(self) -> Tensor:
        """`[num_nodes]` int64: in-neighbours of every node in the whole relation. Counted anew each time, for kept it
        would be eight bytes a node in each process; `in_degree_of` is for the nodes of a batch."""
        return torch.from_numpy(np.diff(self.indptr).astype(np.int64))

    def in_degree_of(self, nodes: Tensor) -> Tensor:
        """`[len(nodes)]` int64, on the device of `nodes`."""
        starts = self.structure.indptr
        places = nodes.to(starts.device)
        return (starts.index_select(0, places + 1) - starts.index_select(0, places)).long().to(nodes.device)

    @cached_property
    def out_degree(self) -> Tensor:
        """`[num_nodes]` int64: how many nodes have this one as in-neighbour."""
        if self.symmetric:
            return self.in_degree
        return torch.from_numpy(np.bincount(self.indices, minlength=self.num_nodes).astype(np.int64))

    @cached_property
    def inverse_sqrt_in_degree(self) -> Tensor:
        """`[num_nodes]` fp32: `d^{-1/2}`, zero for a node without in-neighbours; d is the sum of the weights where
        there are weights. All ones if the weights are final."""
        if self._known_factors is not None:
            return torch.from_numpy(np.asarray(self._known_factors))
        return self._inverse_sqrt(self.in_degree, transposed=False)

    @cached_property
    def inverse_sqrt_out_degree(self) -> Tensor:
        """`[num_nodes]` fp32, likewise for out-degrees."""
        return self.inverse_sqrt_in_degree if self.symmetric else self._inverse_sqrt(self.out_degree, transposed=True)

    def _inverse_sqrt(self, counted: Tensor, *, transposed: bool) -> Tensor:
        if self.weights_are_final:
            return torch.ones(self.num_nodes)
        if self.weight is None:
            return inverse_power(counted, 0.5)
        shape = (self.num_nodes, self.num_nodes)
        matrix = scipy.sparse.csr_matrix((self.weight, self.indices, self.indptr), shape=shape)
        # fp64 ones: each row is added up in fp64.
        ones = np.ones(self.num_nodes)
        return inverse_power(torch.from_numpy((matrix.T if transposed else matrix) @ ones), 0.5)

    @cached_property
    def sampling_graph(self) -> Any:
        """The graph from which DGL samples, over the relation's own arrays.

        DGL's message passing on a block that was sampled from an int32 graph crashes the process (seen with DGL 2.1).
        What is drawn here goes into a `Structure` of its own, on which it does not.
        """
        indptr, indices = torch.from_numpy(self.indptr), torch.from_numpy(self.indices)
        no_ids = torch.empty(0, dtype=indices.dtype)
        return dgl.graph(("csc", (indptr, indices, no_ids)), num_nodes=self.num_nodes)

    def first_at_least(self, rows: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each pair, the id of the row's first edge whose source is ≥ value, or that of the edge after its last."""
        if self.num_edges > KEYED_EDGES:
            return bisect_rows(self.indptr, self.indices, rows, values)
        found: NDArray[np.int64] = np.searchsorted(self._edge_keys, rows * self.num_nodes + values)
        return found

    @cached_property
    def _edge_keys(self) -> NDArray[np.int64]:
        """Destination and source of every edge as one number, ascending: a search over one array, which numpy does at
        once, where rows have to be bisected step by step otherwise."""
        destinations = np.repeat(np.arange(self.num_nodes, dtype=np.int64), np.diff(self.indptr))
        keys: NDArray[np.int64] = destinations * self.num_nodes + self.indices
        return keys

    def edge_ids(self, sources: NDArray[np.int64], destinations: NDArray[np.int64]) -> NDArray[np.int64]:
        """Ids of the edges `sources → destinations`, −1 where there is none."""
        position = self.first_at_least(destinations, sources)
        found = position < self.indptr[destinations + 1]
        found[found] = self.indices[position[found]] == sources[found]
        return np.where(found, position, -1)


def inverse_power(degree: Tensor, power: float) -> Tensor:
    """`degree^{-power}` as fp32, zero where the degree is zero."""
    return torch.where(degree > 0, torch.where(degree > 0, degree, 1).double().pow(-power), 0.0).float()


def bisect_rows(
    indptr: NDArray[Any], indices: NDArray[Any], rows: NDArray[np.int64], values: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each pair, the first position in `indices[indptr[row]:indptr[row + 1]]` whose entry is ≥ value.

    A binary search over all pairs at once: about log2(longest row) vectorised steps, no copy of the rows.
    """
    low = indptr[rows].astype(np.int64)
    high = indptr[rows + 1].astype(np.int64)
    last = max(len(indices) - 1, 0)
    for _ in range(int((high - low).max(initial=0)).bit_length()):
        active = low < high
        middle = np.minimum((low + high) >> 1, last)
        below = indices[middle] < values
        low = np.where(active & below, middle + 1, low)
        high = np.where(active & ~below, middle, high)
    return low
