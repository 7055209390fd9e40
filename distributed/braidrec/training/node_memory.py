"""Memory that all ranks of a run map, where they are processes of one machine."""

import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from braidrec.training.context import Collectives

MARK_BYTES = 64
"""Before the memory that is handed out: a number that proves to the others that they opened the same memory."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def memory_of_all_ranks(context: Collectives, num_bytes: int) -> Tensor | None:
    """`[num_bytes]` bytes, zero at first, that every rank reads and writes; None where ranks do not share a machine.

    The memory has no name and no file: rank 0 makes it, the others open it by rank 0's process, and it is gone with
    the last of them, however that ends. Pages count once they are written, so that much may be asked for. A
    collective; all ranks get memory or none does.
    """
    if context.world_size == 1 or context.device.type != "cpu" or not hasattr(os, "memfd_create"):
        return None
    made = _make(num_bytes) if context.rank == 0 else -1
    try:
        told = torch.tensor([*_machine(), os.getpid(), made, int.from_bytes(os.urandom(7), "little")])
        wanted = context.broadcast(told.clone(), 0).tolist()
        memory = None
        if made >= 0:
            with suppress(OSError):  # no room in its address space
                memory = _mapped(made, num_bytes)
                memory[:8] = told[-1:].view(torch.uint8)
        context.barrier()
        if context.rank != 0 and wanted[:2] == told[:2].tolist() and wanted[3] >= 0:
            memory = _opened(f"/proc/{wanted[2]}/fd/{wanted[3]}", wanted[4], num_bytes)
        all_have_it = float(context.all_reduce(torch.tensor([float(memory is not None)]))) == context.world_size
    finally:
        if made >= 0:
            os.close(made)
    return memory[MARK_BYTES:] if memory is not None and all_have_it else None


def _make(num_bytes: int) -> int:
    with suppress(OSError):
        made = os.memfd_create("braidrec")
        try:
            os.ftruncate(made, MARK_BYTES + num_bytes)
        except OSError:
            os.close(made)
            raise
        return made
    return -1


def _machine() -> tuple[int, int]:
    """Two numbers that differ between machines, and between starts of one."""
    with suppress(OSError, ValueError):
        number = int(_BOOT.read_text(encoding="ascii").strip().replace("-", ""), 16)
        return number >> 65, number & (2**63 - 1)
    return 0, 0


def _opened(path: str, mark: int, num_bytes: int) -> Tensor | None:
    """None: it is not there, or it is that of another process with the same number, in a container of its own."""
    with suppress(OSError, ValueError):
        file = os.open(path, os.O_RDWR)
        try:
            memory = _mapped(file, num_bytes)
        finally:
            os.close(file)
        if int(memory[:8].view(torch.int64)) == mark:
            return memory
    return None


def _mapped(file: int, num_bytes: int) -> Tensor:
    return torch.frombuffer(mmap.mmap(file, MARK_BYTES + num_bytes), dtype=torch.uint8)


def taken_from(memory: Tensor) -> Callable[[torch.dtype, tuple[int, ...]], Tensor]:
    """Deals `memory` out piece after piece: `take(dtype, shape)`, each beginning at a cache line of its own."""
    at = 0

    def take(dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        nonlocal at
        size = bytes_of(dtype, shape)
        piece = memory[at : at + size].view(dtype)[: torch.Size(shape).numel()].view(shape)
        at += size
        return piece

    return take


def bytes_of(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    """What such a piece takes."""
    size = torch.Size(shape).numel() * torch.empty(0, dtype=dtype).element_size()
    return -(-size // MARK_BYTES) * MARK_BYTES
