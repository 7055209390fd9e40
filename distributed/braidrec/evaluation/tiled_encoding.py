"""Layer-wise inference: the final representations of all nodes, a tile of nodes at a time, on all workers of a machine.

A model computes rows from rows; only a hop needs rows of other nodes. So each tile runs the model's own `encode` on its
nodes alone, and where a hop wants rows of others, the tile puts its own into a table that all tiles share, a mapped
file, and ends. When all tiles have, they run once more, read what the hops before have given, and get one hop
further: layer after layer, nothing sampled, every sum along the edges computed once. What a worker holds of its own is
one tile; what lies in files is there once a machine, and its pages are the kernel's to take back.

With one tile for each worker, nobody runs twice: it waits for the others and goes on.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from braidrec.evaluation.scoring import chains_of_evaluation, learn_relations
from braidrec.graph.hop import Neighbourhood
from braidrec.graph.neighbourhood import FullGraph
from braidrec.graph.tiles import cut_into_tiles, tile_of
from braidrec.models.cold_length import stretch_of_items
from braidrec.models.contract import Encoded, FetchFeatures, Inputs, Recommender

ROWS_AT_ONCE = 1 << 16
ATTENTION = "attention"
"""The one output beside the vectors that evaluation looks at; a row for each item."""


class NoSpaceError(Exception):
    """There is no room for a shared table."""


@dataclass(frozen=True, kw_only=True)
class NodeShare:
    """This worker among those of its machine.

    Attributes:
        place: from 0.
        workers: how many there are.
        barrier: waits until every worker is here, those of other machines too.
        folder: for mapped files, which this machine's workers all see; made when first used and left empty.
    """

    place: int
    workers: int
    barrier: Callable[[], None]
    folder: Path


class SharedTables:
    """Tables in mapped files, one copy for all workers of a machine. Their names are taken away as soon as everybody
    has them open, so that nothing stays behind unless a worker is killed in between."""

    def __init__(self, share: NodeShare) -> None:
        self._share = share
        self._open: dict[str, Tensor] = {}
        self._named: list[Path] = []

    def table(self, name: str, num_rows: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """`[num_rows, width]`, zeros at first; the same for every worker that asks for the name.

        Raises:
            NoSpaceError: the disk is full.
        """
        if name not in self._open:
            self._open[name] = self._mapped(name, num_rows, width, dtype)
        return self._open[name]

    def drop(self, name: str) -> None:
        """Forget a table; its space is free when all have."""
        self._open.pop(name, None)

    def settle(self) -> None:
        """Wait for all workers; whoever needs a table has opened it by then."""
        self._share.barrier()
        for path in self._named:
            path.unlink(missing_ok=True)
        self._named.clear()

    def close(self) -> None:
        """Once all are done, or this worker has failed."""
        for path in self._named:
            path.unlink(missing_ok=True)
        self._named.clear()
        with suppress(OSError):  # another worker has, or is about to
            self._share.folder.rmdir()

    def _mapped(self, name: str, num_rows: int, width: int, dtype: torch.dtype) -> Tensor:
        size = num_rows * width
        if size == 0:
            return torch.zeros(num_rows, width, dtype=dtype)
        num_bytes = size * dtype.itemsize
        self._share.folder.mkdir(parents=True, exist_ok=True)
        path = self._share.folder / name
        self._named.append(path)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            # What would be a SIGBUS while writing into a mapped file is an OSError here.
            os.posix_fallocate(descriptor, 0, num_bytes)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise NoSpaceError(
                f"{path}: no room for {num_bytes:,} bytes of representations ({error.strerror}); make room there, set "
                "`cache` to a folder with more, or evaluation.inference=whole"
            ) from error
        finally:
            os.close(descriptor)
        return torch.from_file(str(path), shared=True, size=size, dtype=dtype).view(num_rows, width)


class _HopEnds(Exception):  # noqa: N818 — no error: the tile has given what the others wait for
    pass


class _Pass:
    """One tile's way through the model.

    Args:
        hops_done: exchanges for which all tiles have given their rows; None: the others run at the same time, and an
            exchange waits for them.
    """

    def __init__(self, shared: SharedTables, num_nodes: int, rows: range, hops_done: int | None) -> None:
        self._shared, self._num_nodes, self._rows, self._done = shared, num_nodes, rows, hops_done
        self._count = 0

    def whole(self, h: Tensor) -> Tensor:
        return self._given(self._next(), h)

    def computed(self, h: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        number = self._next()
        if self._done is None:
            return compute(self._given(number, h))
        if number < self._done - 1:  # computed in the pass before
            kept = self._shared.table(f"sums-{number}", self._num_nodes, h.shape[1], h.dtype)
            self._shared.drop(f"rows-{number}")
            return kept[self._rows.start : self._rows.stop].clone()
        out = compute(self._given(number, h))
        kept = self._shared.table(f"sums-{number}", self._num_nodes, out.shape[1], out.dtype)
        kept[self._rows.start : self._rows.stop] = out
        return out

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    def _given(self, number: int, h: Tensor) -> Tensor:
        table = self._shared.table(f"rows-{number}", self._num_nodes, h.shape[1], h.dtype)
        if self._done is None or number >= self._done:
            table[self._rows.start : self._rows.stop] = h
            if self._done is not None:
                raise _HopEnds
            self._shared.settle()
        return table


@torch.no_grad()
def encode_in_tiles(
    model: Recommender,
    tables: Mapping[str, Tensor],
    graph: FullGraph,
    features: FetchFeatures,
    num_users: int,
    cold: Tensor,
    *,
    share: NodeShare,
    rows_at_most: int,
    shared: SharedTables | None = None,
) -> Encoded:
    """What `encode_exactly` gives, in a mapped file. All workers call it; each machine computes all nodes for itself.

    Args:
        tables, graph, features, num_users, cold: as for `encode_exactly`, on the CPU.
        rows_at_most: nodes of a tile.
        shared: where tables of this call lie already; None: nowhere.
    Returns:
        vectors and "attention" of all nodes and items; `ego` has no rows, since only training looks at it.
    Raises:
        NoSpaceError: the disk is full.
        RuntimeError: the model does not do the same for every tile.
    """
    learn_relations(model, graph, features, num_users)
    chains = chains_of_evaluation(model, graph)
    num_nodes = num_users + len(cold)
    degree = sum((hop.in_degree.numpy() for hop in graph.relations.values()), np.zeros(num_nodes, dtype=np.int64))
    dealt = cut_into_tiles(degree, workers=share.workers, rows_at_most=rows_at_most)
    own = dealt[share.place]
    shared = shared or SharedTables(share)
    found = _Found(shared, num_users, len(cold))
    hops_done = None if all(len(tiles) == 1 for tiles in dealt) else 0
    while True:
        ended = 0
        for rows in own:
            exchange = _Pass(shared, num_nodes, rows, hops_done)
            around = dict(zip(chains, tile_of(graph, list(chains.values()), rows, exchange), strict=True))
            try:
                encoded = model.encode(_inputs(rows, around, tables, features, num_users, cold))
            except _HopEnds:
                continue
            found.put(rows, encoded)
            ended += 1
        shared.settle()
        if ended == len(own):
            break
        if ended:
            raise RuntimeError(
                f"{type(model).__name__} asks for other rows in one tile of nodes than in another: set "
                "evaluation.inference=whole"
            )
        assert hops_done is not None
        hops_done += 1
    if getattr(model, "matches_cold_length", False):
        _match_cold_length(found.vectors[num_users:], cold, share)
    shared.close()
    return found.encoded()


class _Found:
    """The results, row by row."""

    def __init__(self, shared: SharedTables, num_users: int, num_items: int) -> None:
        self._shared, self._num_users, self._num_items = shared, num_users, num_items
        self._attention: Tensor | None = None

    def put(self, rows: range, encoded: Encoded) -> None:
        num_nodes = self._num_users + self._num_items
        self.vectors = self._shared.table("vectors", num_nodes, encoded.vectors.shape[1])
        self.vectors[rows.start : rows.stop] = encoded.vectors
        weights = encoded.outputs.get(ATTENTION)
        if weights is not None:
            self._attention = self._shared.table(ATTENTION, self._num_items, weights.shape[1])
            first = max(rows.start - self._num_users, 0)
            self._attention[first : first + len(weights)] = weights

    def encoded(self) -> Encoded:
        outputs = {} if self._attention is None else {ATTENTION: self._attention}
        return Encoded(vectors=self.vectors, ego=self.vectors[:0], outputs=outputs)


def _inputs(
    rows: range,
    neighbourhoods: Mapping[str, Neighbourhood],
    tables: Mapping[str, Tensor],
    features: FetchFeatures,
    num_users: int,
    cold: Tensor,
) -> Inputs:
    return Inputs(
        seeds=torch.arange(rows.start, rows.stop),
        num_users=num_users,
        num_items=len(cold),
        neighbourhoods=neighbourhoods,
        table=lambda name, nodes: tables[name] if nodes is None else tables[name].index_select(0, nodes),
        features=features,
        cold=cold,
    )


def _match_cold_length(items: Tensor, cold: Tensor, share: NodeShare) -> None:
    """`with_cold_length` in place: it takes the mean over all items, so that it comes when all are there."""
    stretch = stretch_of_items(torch.cat([part.norm(dim=1) for part in torch.split(items, ROWS_AT_ONCE)]), cold)
    share.barrier()  # everybody has read the lengths
    if stretch is not None:
        of_worker = torch.arange(share.place, len(items), share.workers)
        for places in torch.split(of_worker[cold[of_worker]], ROWS_AT_ONCE):
            items[places] *= stretch[places].unsqueeze(-1)
    share.barrier()
