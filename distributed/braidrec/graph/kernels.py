"""The one numerical kernel of propagation: sum the source rows of every destination. DGL, or torch's CSR.

`sum_sources(structure, h)[v] = Σ_{u → v} w_uv h[u]`, differentiable in `h`; w are the structure's weights, 1 where it
has none. The backward pass is the same sum over the transposed structure. DGL's CPU kernel is about three times faster
than torch's CSR product; a DGL without CUDA has no kernel for tensors on a GPU, and there torch's CSR product takes
over. Both give equal numbers (tested).

With weights, DGL's CPU kernel (`u_mul_e_sum`) is eight to fifteen times slower than without, so torch's weighted
embedding bag stands in for it: as fast as DGL without weights, two to three times faster than torch's CSR product.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from braidrec.graph.dgl_import import dgl
from braidrec.graph.structure import Structure

Kernel = Callable[[Structure, Tensor], Tensor]


def _sum_with_dgl(structure: Structure, h: Tensor) -> Tensor:
    if structure.weight is not None:
        return _weighted_sum_beside_dgl(structure, structure.weight, h)
    out: Tensor = dgl.ops.copy_u_sum(structure.dgl_block, h)
    return out


def _weighted_sum_beside_dgl(structure: Structure, weight: Tensor, h: Tensor) -> Tensor:
    if h.device.type != "cpu":
        out: Tensor = dgl.ops.u_mul_e_sum(structure.dgl_block_with_edge_ids, h, weight.to(h.dtype).unsqueeze(-1))
        return out
    if h.dtype == torch.float64:  # the embedding bag has no fast path for it
        return _sum_with_torch(structure, h)
    return embedding_bag(
        structure.indices,
        h.contiguous(),
        structure.indptr,
        mode="sum",
        per_sample_weights=weight.to(h.dtype),
        include_last_offset=True,
    )


def _sum_with_torch(structure: Structure, h: Tensor) -> Tensor:
    matrix = structure.torch_csr
    if h.dtype == torch.float32 or h.dtype == torch.float64:
        return matrix.to(h.dtype) @ h
    # torch has no half-precision CSR product on the CPU; accumulate in fp32 as DGL's kernel does.
    return (matrix @ h.float()).to(h.dtype)


KERNELS: dict[str, Kernel] = {"dgl": _sum_with_dgl, "torch": _sum_with_torch}


def choose_kernel(device: torch.device, wanted: str = "auto") -> str:
    """The kernel for `device`: "dgl" where this DGL has one for it, else "torch".

    Raises:
        ValueError: "dgl" is asked for on a device for which the installed DGL has no kernel.
    """
    has_dgl = device.type == "cpu" or (device.type == "cuda" and _dgl_has_cuda())
    if wanted == "dgl" and not has_dgl:
        raise ValueError(
            f"kernel='dgl', but the installed DGL {dgl.__version__} has no kernel for {device}: "
            "install a CUDA build of DGL (docs/cluster.md) or use kernel='auto'"
        )
    if wanted != "auto":
        return wanted
    return "dgl" if has_dgl else "torch"


def _dgl_has_cuda() -> bool:
    try:
        dgl.graph(([0], [0])).to("cuda")
    except dgl.DGLError:
        return False
    return True


class _SumSources(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, structure: Structure, h: Tensor, kernel: str) -> Tensor:
        ctx.structure, ctx.kernel = structure, kernel
        return KERNELS[kernel](structure, h)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        return None, KERNELS[ctx.kernel](ctx.structure.transposed, gradient.contiguous()), None


def sum_sources(structure: Structure, h: Tensor, kernel: str) -> Tensor:
    """Σ of the source rows of every destination, times the structure's weights if it has any.

    Args:
        structure: the edges.
        h: `[num_src, d]`, on the structure's device.
        kernel: "dgl" or "torch".
    Returns:
        `[num_dst, d]`; a destination without edges gets zeros.
    """
    out: Tensor = _SumSources.apply(structure, h, kernel)
    return out


def weighted_sum_sources(structure: Structure, h: Tensor, weight: Tensor, kernel: str) -> Tensor:
    """`Σ_{e: u → v} weight[e] · h[u]`, differentiable in `h` and in `weight` (learned relations, edge masks).

    Args:
        structure: the edges; weights of its own are multiplied with `weight`.
        h: `[num_src, d]`.
        weight: `[num_edges]`, in the structure's edge order; taken in the number format of `h`.
        kernel: "dgl" or "torch".
    """
    if structure.weight is not None:
        weight = weight * structure.weight.to(weight.dtype)
    factor = weight.to(h.dtype).unsqueeze(-1)
    if kernel == "dgl":
        out: Tensor = dgl.ops.u_mul_e_sum(structure.dgl_block_with_edge_ids, h, factor)
        return out
    # Half precision is accumulated in fp32, as DGL's kernel does.
    accumulated = torch.promote_types(h.dtype, torch.float32)
    messages = h[structure.indices.long()].to(accumulated) * factor.to(accumulated)
    total = messages.new_zeros(structure.num_dst, h.shape[1]).index_add(0, structure.destinations, messages)
    return total.to(h.dtype)
