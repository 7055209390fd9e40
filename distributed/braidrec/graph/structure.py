"""The edges of one bipartite step, stored by destination, in the forms that the kernels want."""

import warnings
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from braidrec.graph.dgl_import import dgl


class Structure:
    """Edges by destination: those of destination `v` are `indices[indptr[v]:indptr[v + 1]]`, their sources.

    Args:
        indptr: `[num_dst + 1]` and
        indices: `[num_edges]`, of one integer type, on one device.
        num_src: sources are numbered `0 .. num_src - 1`.
        symmetric: the transpose is the same structure (an undirected graph over one node space), weights included.
        weight: `[num_edges]` fp32 by which every sum along the edges multiplies their sources; None is 1.
    """

    def __init__(
        self, indptr: Tensor, indices: Tensor, num_src: int, *, symmetric: bool = False, weight: Tensor | None = None
    ) -> None:
        assert indptr.dtype == indices.dtype and indptr.device == indices.device
        assert weight is None or (len(weight) == len(indices) and weight.device == indices.device)
        self.indptr = indptr
        self.indices = indices
        self.num_src = num_src
        self.symmetric = symmetric
        self.weight = weight

    @property
    def num_dst(self) -> int:
        return len(self.indptr) - 1

    @property
    def num_edges(self) -> int:
        return len(self.indices)

    @property
    def device(self) -> torch.device:
        return self.indptr.device

    @cached_property
    def transposed(self) -> "Structure":
        """The same edges by source: the structure of the backward pass."""
        if self.symmetric:
            return self
        if self.weight is not None:
            return _transpose_weighted(self, self.weight)
        transpose = _transpose_with_scipy if self.device.type == "cpu" else _transpose_with_torch
        indptr, indices = transpose(self)
        return Structure(indptr, indices, self.num_dst)

    @cached_property
    def destinations(self) -> Tensor:
        """`[num_edges]` int64: the destination of every edge."""
        counts = self.indptr.diff().long()
        return torch.repeat_interleave(torch.arange(self.num_dst, device=self.device), counts)

    @cached_property
    def dgl_block(self) -> Any:
        """A DGL block with these edges, made without copying them, for kernels that read no edge values."""
        return self._make_block(self.indices.new_empty(0))

    @cached_property
    def dgl_block_with_edge_ids(self) -> Any:
        """The block for kernels that read edge values, in this structure's order. No ids mean 0, 1, 2, … to DGL, but
        its libxsmm kernels fail without them (seen with DGL 2.1: "Check notnull: edges")."""
        return self._make_block(torch.arange(self.num_edges, dtype=self.indices.dtype, device=self.device))

    @cached_property
    def torch_csr(self) -> Tensor:
        """The matrix `[num_dst, num_src]` of the weights, or of ones, in torch's CSR layout, fp32."""
        values = torch.ones(self.num_edges, device=self.device) if self.weight is None else self.weight
        with warnings.catch_warnings():
            # torch calls the layout a beta feature, once a process; the user can do nothing about it.
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            return torch.sparse_csr_tensor(
                self.indptr, self.indices, values, size=(self.num_dst, self.num_src), check_invariants=False
            )

    def _make_block(self, edge_ids: Tensor) -> Any:
        return dgl.create_block(
            ("csc", (self.indptr, self.indices, edge_ids)), num_src_nodes=self.num_src, num_dst_nodes=self.num_dst
        )

    def rows(self, wanted: Tensor) -> tuple["Structure", Tensor]:
        """The structure restricted to the destinations `wanted` (int64), in that order, and the place that each of its
        edges has in this one; sources keep their numbers."""
        wanted = wanted.to(self.device)
        starts = self.indptr[wanted].long()
        counts = self.indptr[wanted + 1].long() - starts
        ends = counts.cumsum(0)
        num_edges = int(ends[-1]) if len(ends) else 0
        indptr = torch.cat([ends.new_zeros(1), ends]).to(self.indptr.dtype)
        positions = torch.repeat_interleave(starts - (ends - counts), counts, output_size=num_edges)
        positions += torch.arange(num_edges, device=self.device)
        weight = None if self.weight is None else self.weight[positions]
        return Structure(indptr, self.indices[positions], self.num_src, weight=weight), positions

    def to(self, device: torch.device) -> "Structure":
        """The structure on `device` (itself if it is there already)."""
        if device == self.device:
            return self
        weight = None if self.weight is None else self.weight.to(device)
        indptr, indices = self.indptr.to(device), self.indices.to(device)
        return Structure(indptr, indices, self.num_src, symmetric=self.symmetric, weight=weight)


def _transpose_weighted(structure: Structure, weight: Tensor) -> Structure:
    """The transpose, with the weights following their edges."""
    if structure.device.type == "cpu":
        matrix = scipy.sparse.csr_matrix(
            (weight.numpy(), structure.indices.numpy(), structure.indptr.numpy()),
            shape=(structure.num_dst, structure.num_src),
        ).tocsc()
        dtype = structure.indices.dtype
        indptr, indices = torch.from_numpy(matrix.indptr).to(dtype), torch.from_numpy(matrix.indices).to(dtype)
        return Structure(indptr, indices, structure.num_dst, weight=torch.from_numpy(matrix.data))
    order = torch.sort(structure.indices, stable=True).indices
    indptr, indices = _transpose_with_torch(structure)
    return Structure(indptr, indices, structure.num_dst, weight=weight[order])


def _transpose_with_torch(structure: Structure) -> tuple[Tensor, Tensor]:
    """On any device."""
    order = torch.sort(structure.indices, stable=True).indices
    counts = torch.bincount(structure.indices, minlength=structure.num_src)
    indptr = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(structure.indptr.dtype)
    return indptr, structure.destinations[order].to(structure.indices.dtype)


def _transpose_with_scipy(structure: Structure) -> tuple[Tensor, Tensor]:
    """scipy's counting sort is some 200 times faster here than torch's conversion (1.2 ms for 260,000 edges)."""
    indptr, indices = structure.indptr.numpy(), structure.indices.numpy()
    matrix = scipy.sparse.csr_matrix(
        (np.empty(len(indices), dtype=np.int8), indices, indptr), shape=(structure.num_dst, structure.num_src)
    ).tocsc()
    dtype = structure.indices.dtype
    return torch.from_numpy(matrix.indptr).to(dtype), torch.from_numpy(matrix.indices).to(dtype)
