"""Rows of large tensors in a checkpoint, written by several ranks side by side and read back by any number of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

HeldRows = Callable[[str], range | None]
"""By a tensor's name, the rows of it that are wanted; None: all."""


def all_rows(name: str) -> range | None:
    """Every tensor as a whole."""
    return None


@dataclass(frozen=True)
class RowBlock:
    """Consecutive rows of a tensor, from row `start` of the whole."""

    start: int
    rows: Tensor


def part_name(rank: int, num_ranks: int) -> str:
    """The file of one rank."""
    return f"rows-{rank:05d}-of-{num_ranks:05d}.safetensors"


def write_blocks(file: Path, blocks: Mapping[str, RowBlock]) -> dict[str, list[int]]:
    """Write them; returns for the manifest which rows of which tensor the file has, [first, last + 1]."""
    save_file({name: block.rows.detach().cpu().contiguous() for name, block in blocks.items()}, file)
    return {name: [block.start, block.start + len(block.rows)] for name, block in blocks.items()}


def parts_of(manifest: Mapping[str, Any], held: HeldRows) -> list[str]:
    """The files of a manifest with rows that are wanted; of a tensor of which none are, those that tell its shape."""
    parts = []
    for file, entry in manifest.items():
        wanted = [(rows, held(name)) for name, rows in entry.get("rows", {}).items()]
        if any(not some or max(start, some.start) < min(stop, some.stop) for (start, stop), some in wanted):
            parts.append(file)
    return parts


def read_blocks(
    folder: Path, manifest: Mapping[str, Any], held: HeldRows, wanted: Callable[[str], bool]
) -> dict[str, Tensor]:
    """Put rows together from whatever files they are in.

    Args:
        wanted: by its name, whether a tensor is wanted at all.
    Raises:
        ValueError: the files do not have all rows.
    """
    places: dict[str, list[tuple[int, int, Path]]] = {}
    for file, entry in manifest.items():
        for name, (start, stop) in entry.get("rows", {}).items():
            if wanted(name):
                places.setdefault(name, []).append((start, stop, folder / file))
    return {name: _put_together(name, sorted(found), held(name)) for name, found in places.items()}


def read_rows(file: Path, name: str, rows: range) -> Tensor:
    """Some rows of one tensor of a safetensors file, without reading the others."""
    with safe_open(file, framework="pt") as opened:
        found: Tensor = opened.get_slice(name)[rows.start : rows.stop]
    return found


def _put_together(name: str, places: list[tuple[int, int, Path]], wanted: range | None) -> Tensor:
    wanted = range(places[-1][1]) if wanted is None else wanted
    if not wanted:
        return read_rows(places[0][2], name, range(0))
    whole: Tensor | None = None
    at = wanted.start
    for start, stop, file in places:
        first, last = max(start, wanted.start), min(stop, wanted.stop)
        if first >= last or first != at:
            continue
        piece = read_rows(file, name, range(first - start, last - start))
        whole = torch.empty(len(wanted), *piece.shape[1:], dtype=piece.dtype) if whole is None else whole
        whole[first - wanted.start : last - wanted.start] = piece
        at = last
    if whole is None or at != wanted.stop:
        raise ValueError(f"rows {at} to {wanted.stop} of {name} are in none of its files")
    return whole
