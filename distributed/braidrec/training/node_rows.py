"""The rows of a dealt-out table in memory that all its ranks share, and gradients that they leave for each other."""

from collections.abc import Sequence

import torch
from torch import Tensor

from braidrec.training.context import Collectives
from braidrec.training.node_memory import bytes_of, memory_of_all_ranks, taken_from
from braidrec.training.partition import RowPartition

Piece = tuple[Tensor, Tensor]
"""Rows, and the gradient of each, `[rows]` and `[rows, width]`."""


class NodeRows:
    """What ranks on one machine need not send: a rank reads rows where they are, and picks up its gradients where other
    ranks left them.

    Attributes:
        whole: `[num_rows, width]` all rows; a rank changes those that it holds, after a barrier that all have passed
            since they last read.
    """

    def __init__(self, whole: Tensor, left: Sequence[tuple[Tensor, Tensor, Tensor]], partition: RowPartition) -> None:
        self.whole = whole
        self._left, self._partition = left, partition

    @classmethod
    def made(cls, partition: RowPartition, width: int, dtype: torch.dtype, context: Collectives) -> "NodeRows | None":
        """A collective; None where the ranks do not share a machine's memory."""
        rows, ranks = partition.num_rows, context.world_size
        table = (dtype, (rows, width))
        boxes = ((torch.int64, (ranks,)), (torch.int64, (rows,)), table)
        memory = memory_of_all_ranks(context, bytes_of(*table) + ranks * sum(bytes_of(*box) for box in boxes))
        if memory is None:
            return None
        take = taken_from(memory)
        whole = take(*table)
        left = [(take(*boxes[0]), take(*boxes[1]), take(*boxes[2])) for _ in range(ranks)]
        return cls(whole, left, partition)

    def exchanged(self, nodes: Tensor, gradients: Tensor, context: Collectives) -> list[Piece]:
        """Leave gradients for the owners of rows; what all ranks left for this one, in their order: a collective.

        Args:
            nodes: rows of the whole table, no more than it has.
            gradients: `[len(nodes), width]`.
        Returns:
            Of each rank, places in the shard of this rank, and gradients; they stay as they are until the next barrier.
        """
        own = self._leave(nodes, gradients, context)
        context.barrier()
        return [own if rank == context.rank else self._left_by(rank, context.rank) for rank in range(len(self._left))]

    def _leave(self, nodes: Tensor, gradients: Tensor, context: Collectives) -> Piece:
        """Write what other ranks own, one rank after the other; returns what this one does."""
        counts, rows, values = self._left[context.rank]
        own, at = (nodes[:0], gradients[:0]), 0
        for rank in range(context.world_size):
            held = self._partition.rows(rank)
            chosen = ((nodes >= held.start) & (nodes < held.stop)).nonzero().squeeze(1)
            places = nodes.index_select(0, chosen).sub_(held.start)
            counts[rank] = 0
            if rank == context.rank:
                own = (places, gradients.index_select(0, chosen))
                continue
            counts[rank] = len(chosen)
            rows[at : at + len(chosen)] = places
            torch.index_select(gradients, 0, chosen, out=values[at : at + len(chosen)])
            at += len(chosen)
        return own

    def _left_by(self, rank: int, reader: int) -> Piece:
        counts, rows, values = self._left[rank]
        sizes = counts.tolist()
        part = slice(sum(sizes[:reader]), sum(sizes[: reader + 1]))
        return rows[part], values[part]
