"""How all nodes are encoded for evaluation: at once in each worker, or in tiles by all workers of a machine."""

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from braidrec.config.load import ConfigError
from braidrec.config.run import RunConfig
from braidrec.config.systems.dvbpr import DVBPRConfig
from braidrec.errors import RunError
from braidrec.evaluation.scoring import encode_exactly
from braidrec.evaluation.tiled_encoding import (
    ROWS_AT_ONCE,
    NodeShare,
    NoSpaceError,
    SharedTables,
    encode_in_tiles,
)
from braidrec.graph.neighbourhood import FullGraph
from braidrec.models.contract import Encoded, Recommender
from braidrec.training.context import Collectives
from braidrec.training.sharded_table import ShardedTable
from braidrec.training.tables import Table
from braidrec.training.world import World, cache_folder

LARGEST_SHARE = 0.25
"""Of the memory that a worker may use: what encoding all nodes at once may take."""
FEWEST_ROWS = 1_024
FOLDER = "inference"
DEAD_AFTER_SECONDS = 86_400
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Inference:
    """How a run encodes all nodes.

    Attributes:
        kind: "whole" or "tiled".
        reason: why.
        rows_at_most: nodes of a tile.
        cache: the machine's folder, in which the mapped files lie.
    """

    kind: str
    reason: str
    rows_at_most: int
    cache: Path

    def encode(
        self,
        model: Recommender,
        tables: Mapping[str, Table | Tensor],
        graph: FullGraph,
        world: World,
        context: Collectives,
    ) -> Encoded:
        """Final representations of all nodes; a collective.

        Args:
            tables: by name, or all their rows.
        Raises:
            RunError: no room on the disk.
        """
        rest = (graph, world.features.fetch, world.num_users, world.cold)
        if self.kind == "whole":
            return encode_exactly(model, {name: _all_rows(table) for name, table in tables.items()}, *rest)
        share, every_rank_is_here = share_of_node(context, self.cache)
        shared = SharedTables(share)
        try:
            rows = {
                name: _rows_of(name, table, shared, share, None if every_rank_is_here else context)
                for name, table in tables.items()
            }
            return encode_in_tiles(model, rows, *rest, share=share, rows_at_most=self.rows_at_most, shared=shared)
        except NoSpaceError as error:
            raise RunError(str(error)) from None
        finally:
            shared.close()


def inference_of(
    config: RunConfig, model: Recommender, world: World, *, memory_bytes: int, context: Collectives
) -> Inference:
    """As `choose_inference`, for a run."""
    wanted = config.evaluation.inference
    if wanted == "auto" and isinstance(config.model.encoder, DVBPRConfig):
        wanted = "whole"  # shares its images out evenly by itself; tiles of the graph would not, users cost it nothing
    return choose_inference(
        model,
        world.num_users + world.folder.num_items,
        sum(world.features.dims.values()),
        wanted=wanted,
        tile_mb=config.evaluation.tile_mb,
        memory_bytes=memory_bytes,
        world_size=context.world_size,
        device=context.device,
        cache=cache_folder(config),
    )


def choose_inference(
    model: Recommender,
    num_nodes: int,
    feature_columns: int,
    *,
    wanted: str,
    tile_mb: int,
    memory_bytes: int,
    world_size: int,
    device: torch.device,
    cache: Path,
) -> Inference:
    """Whether nodes are encoded in tiles.

    Args:
        feature_columns: numbers that an item's features have, over all modalities.
        wanted: "whole", "tiled" or "auto": tiled where a worker has no room for the representations of all nodes.
        tile_mb: what a tile may take, MiB.
        memory_bytes: what a worker may use.
    Raises:
        ConfigError: tiles are wanted on another device than the CPU.
    """
    if device.type != "cpu" and wanted == "tiled":
        raise ConfigError(
            f"evaluation.inference=tiled keeps representations in mapped files, but this run computes on {device.type}"
            ": set evaluation.inference=whole, or workers.gpu=false"
        )
    need = 4 * num_nodes * columns_of(model, at_a_time=4)
    # A tile also has what it takes out of tables and files, which the whole has in place.
    rows = max(FEWEST_ROWS, tile_mb * 2**20 // (4 * (columns_of(model, at_a_time=6) + feature_columns)))
    what = f"{need / 2**20:,.0f} MiB at once, of {memory_bytes / 2**20:,.0f} that a worker may use"
    if wanted != "auto":
        return Inference(wanted, f"as configured; {what}", rows, cache)
    if device.type == "cpu" and need > LARGEST_SHARE * memory_bytes and num_nodes >= world_size:
        return Inference("tiled", what, rows, cache)
    return Inference("whole", what, rows, cache)


def columns_of(model: Recommender, *, at_a_time: int) -> int:
    """About how many numbers a node has while it is encoded: some tensors as wide as the tables, and one a hop."""
    width = sum(spec.width for spec in model.tables().values())
    hops = max((len(branch.chain or ()) for branch in model.branches().values()), default=0)
    return max(1, width) * (hops + at_a_time)


def share_of_node(context: Collectives, cache: Path) -> tuple[NodeShare, bool]:
    """This worker among those that see the same cache folder on the same machine, and whether these are all: a
    collective."""
    cache.mkdir(parents=True, exist_ok=True)
    _sweep(cache)
    where = os.stat(cache)
    boot = _BOOT.read_text(encoding="ascii") if _BOOT.is_file() else os.uname().nodename
    machine = _number(f"{boot}:{where.st_dev}:{where.st_ino}".encode())
    own = torch.tensor([[machine, _number(os.urandom(16))]], device=context.device)
    every = context.all_gather_rows(own).tolist()
    here = [rank for rank, (other, _) in enumerate(every) if other == machine]
    share = NodeShare(
        place=here.index(context.rank),
        workers=len(here),
        barrier=context.barrier,
        folder=cache / f"{FOLDER}-{every[here[0]][1]:016x}",
    )
    return share, len(here) == context.world_size


def _sweep(cache: Path) -> None:
    """Remove what workers left that were killed before all had a file open, which takes them moments."""
    for folder in cache.glob(f"{FOLDER}-*"):
        with suppress(OSError):  # another worker removes it too
            if time.time() - folder.stat().st_mtime > DEAD_AFTER_SECONDS:
                shutil.rmtree(folder)


def _number(content: bytes) -> int:
    return int.from_bytes(sha256(content).digest()[:8], "big") >> 1


def _all_rows(table: Table | Tensor) -> Tensor:
    return table if isinstance(table, Tensor) else table.all_rows()


def _rows_of(
    name: str, table: Table | Tensor, shared: SharedTables, share: NodeShare, others: Collectives | None
) -> Tensor:
    """`[num_rows, width]` all rows: of a dealt-out table, in a mapped file, where their owners have written them.

    Args:
        others: None where all ranks are on this machine; otherwise the rows go to the others a few at a time.
    """
    if not isinstance(table, ShardedTable) or table.context.world_size == 1 or table.shares_memory:
        return _all_rows(table)
    held, shard = table.held, table.weight.detach()
    whole = shared.table(f"table-{name}", table.num_rows, shard.shape[1], shard.dtype)
    whole[held.start : held.stop] = shard
    for rank in range(others.world_size if others is not None else 0):
        assert others is not None
        owned = table.partition.rows(rank)
        for start in range(owned.start, owned.stop, ROWS_AT_ONCE):
            stop = min(start + ROWS_AT_ONCE, owned.stop)
            rows = shard.new_empty(stop - start, shard.shape[1])
            if rank == others.rank:
                rows.copy_(shard[start - held.start : stop - held.start])
            others.broadcast(rows, rank)
            if rank != others.rank and share.place == 0:  # equal rows, also where their owner is on this machine
                whole[start:stop] = rows
    shared.settle()
    return whole
