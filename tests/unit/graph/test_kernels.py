"""Sums over the sources: DGL = torch = a dense product, values and gradients; and the structure that they work on."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

from braidrec.graph import kernels
from braidrec.graph.kernels import KERNELS, choose_kernel, sum_sources, weighted_sum_sources
from braidrec.graph.structure import Structure, _transpose_with_scipy, _transpose_with_torch

NUM_DST, NUM_SRC = 17, 11
INDEX_TYPES = [torch.int32, torch.int64]


def random_structure(dtype: torch.dtype, seed: int = 0) -> tuple[Structure, np.ndarray]:
    """Destinations 0 and 5 and source 10 without edges; sources in no order, so that order matters."""
    rng = np.random.default_rng(seed)
    matrix = (rng.random((NUM_DST, NUM_SRC)) < 0.35).astype(float)
    matrix[[0, 5]] = 0.0
    matrix[:, 10] = 0.0
    chosen = [rng.permutation(np.flatnonzero(row)) for row in matrix]
    indptr = torch.from_numpy(np.cumsum([0, *map(len, chosen)])).to(dtype)
    return Structure(indptr, torch.from_numpy(np.concatenate(chosen)).to(dtype), NUM_SRC), matrix


def value_and_gradients(call: Callable[[], Tensor], *leaves: Tensor) -> list[Tensor]:
    for leaf in leaves:
        leaf.grad = None
    out = call()
    rng = np.random.default_rng(1)
    out.backward(torch.from_numpy(rng.normal(size=tuple(out.shape))).to(out.dtype))
    return [out.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize("index_type", INDEX_TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dim", [1, 5, 64])
def test_sum_and_its_gradient_are_dense_products(
    kernel: str, dtype: torch.dtype, index_type: torch.dtype, dim: int
) -> None:
    structure, matrix = random_structure(index_type)
    h = torch.from_numpy(np.random.default_rng(2).normal(size=(NUM_SRC, dim))).to(dtype).requires_grad_()
    out, gradient = value_and_gradients(lambda: sum_sources(structure, h, kernel), h)
    upstream = np.random.default_rng(1).normal(size=(NUM_DST, dim))
    assert out.dtype == gradient.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    np.testing.assert_allclose(out.numpy(), matrix @ h.detach().double().numpy(), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(gradient.numpy(), matrix.T @ upstream, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("index_type", INDEX_TYPES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_bf16_rounds_the_result_only(kernel: str, index_type: torch.dtype) -> None:
    structure, matrix = random_structure(index_type)
    h = torch.from_numpy(np.random.default_rng(2).normal(size=(NUM_SRC, 16))).bfloat16().requires_grad_()
    out, gradient = value_and_gradients(lambda: sum_sources(structure, h, kernel), h)
    upstream = torch.from_numpy(np.random.default_rng(1).normal(size=(NUM_DST, 16))).bfloat16().double().numpy()
    assert out.dtype == gradient.dtype == torch.bfloat16
    # bf16 has 8 significant bits: one rounding is at most 2⁻⁸ of the value (fp32 accumulation adds next to nothing).
    np.testing.assert_allclose(out.double().numpy(), matrix @ h.detach().double().numpy(), rtol=2**-8, atol=1e-5)
    np.testing.assert_allclose(gradient.double().numpy(), matrix.T @ upstream, rtol=2**-8, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("weighted", [False, True])
def test_bf16_is_accumulated_in_fp32(kernel: str, weighted: bool) -> None:
    # A bf16 accumulator would stop at 256, where adding 1 no longer changes it.
    star = Structure(torch.tensor([0, 3000]), torch.arange(3000), 3000)
    ones = torch.ones(3000, 8, dtype=torch.bfloat16)
    out = weighted_sum_sources(star, ones, torch.ones(3000), kernel) if weighted else sum_sources(star, ones, kernel)
    assert (out.float() - 3000).abs().max() <= 8


@pytest.mark.parametrize("index_type", INDEX_TYPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dim", [1, 6])
def test_weighted_sum_and_both_its_gradients(
    dim: int, kernel: str, dtype: torch.dtype, index_type: torch.dtype
) -> None:
    structure, matrix = random_structure(index_type)
    rng = np.random.default_rng(4)
    h = torch.from_numpy(rng.normal(size=(NUM_SRC, dim))).to(dtype).requires_grad_()
    weight = torch.from_numpy(rng.normal(size=structure.num_edges)).float().requires_grad_()
    out, h_gradient, weight_gradient = value_and_gradients(
        lambda: weighted_sum_sources(structure, h, weight, kernel), h, weight
    )
    dense = np.zeros_like(matrix)
    sources, destinations = structure.indices.numpy(), np.repeat(np.arange(NUM_DST), matrix.sum(1).astype(int))
    dense[destinations, sources] = weight.detach().numpy()
    upstream = np.random.default_rng(1).normal(size=(NUM_DST, dim))
    values = h.detach().double().numpy()
    np.testing.assert_allclose(out.numpy(), dense @ values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(h_gradient.numpy(), dense.T @ upstream, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        weight_gradient.numpy(), (upstream[destinations] * values[sources]).sum(1), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_of_another_format_follow_the_rows(kernel: str) -> None:
    structure, _ = random_structure(torch.int32)
    h = torch.randn(NUM_SRC, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight = torch.rand(structure.num_edges, generator=torch.Generator().manual_seed(1), requires_grad=True)
    out = weighted_sum_sources(structure, h, weight, kernel)
    exact = weighted_sum_sources(structure, h.double(), weight.bfloat16().double(), "torch")
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16 and weight.grad is not None and weight.grad.dtype == torch.float32
    torch.testing.assert_close(out.double(), exact, rtol=2**-7, atol=0.02)


@pytest.mark.parametrize("index_type", INDEX_TYPES)
@pytest.mark.parametrize("transpose", [_transpose_with_scipy, _transpose_with_torch])
def test_transpose(transpose: Callable[[Structure], tuple[Tensor, Tensor]], index_type: torch.dtype) -> None:
    structure, matrix = random_structure(index_type)
    indptr, indices = transpose(structure)
    assert indptr.dtype == indices.dtype == index_type
    ones = np.ones(len(indices))
    rebuilt = scipy.sparse.csr_matrix((ones, indices.numpy(), indptr.numpy()), shape=(NUM_SRC, NUM_DST)).toarray()
    np.testing.assert_array_equal(rebuilt, matrix.T)


@pytest.mark.parametrize("index_type", INDEX_TYPES)
def test_rows_are_the_wanted_ones_in_their_order(index_type: torch.dtype) -> None:
    structure, matrix = random_structure(index_type)
    wanted = torch.tensor([12, 0, 3, 16, 5, 1])
    rows, positions = structure.rows(wanted)
    assert (rows.num_dst, rows.num_src, rows.indptr.dtype) == (6, NUM_SRC, index_type)
    assert torch.equal(rows.indices, structure.indices[positions])
    for place, row in enumerate(wanted.tolist()):
        mine = rows.indices[rows.indptr[place] : rows.indptr[place + 1]].tolist()
        assert sorted(mine) == np.flatnonzero(matrix[row]).tolist()
        assert mine == structure.indices[structure.indptr[row] : structure.indptr[row + 1]].tolist()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("wanted", [[], [0, 5]])
def test_no_rows_and_no_edges(wanted: list[int], kernel: str) -> None:
    rows, positions = random_structure(torch.int32)[0].rows(torch.tensor(wanted, dtype=torch.int64))
    assert (rows.num_dst, rows.num_edges, len(positions)) == (len(wanted), 0, 0)
    h, weight = torch.ones(NUM_SRC, 2, requires_grad=True), torch.ones(0, requires_grad=True)
    for call in (lambda: sum_sources(rows, h, kernel), lambda: weighted_sum_sources(rows, h, weight, kernel)):
        out, gradient = value_and_gradients(call, h)
        assert out.tolist() == [[0.0, 0.0]] * len(wanted)
        assert not gradient.any()


@pytest.mark.filterwarnings("error")
def test_the_torch_kernel_is_silent() -> None:
    structure, matrix = random_structure(torch.int32)
    torch.set_warn_always(True)  # torch says it once a process, and other tests come first
    try:
        out = sum_sources(structure, torch.ones(NUM_SRC, 2), "torch")
    finally:
        torch.set_warn_always(False)
    assert out[:, 0].tolist() == matrix.sum(1).tolist()


@pytest.mark.parametrize("index_type", INDEX_TYPES)
def test_the_dgl_block_has_the_edges_in_order(index_type: torch.dtype) -> None:
    structure, _ = random_structure(index_type)
    for block in (structure.dgl_block, structure.dgl_block_with_edge_ids):
        sources, destinations = block.edges(order="eid")
        assert torch.equal(sources, structure.indices)
        assert torch.equal(destinations.long(), structure.destinations)


@pytest.mark.parametrize(
    ("device", "wanted", "dgl_has_cuda", "chosen"),
    [
        ("cpu", "auto", False, "dgl"),
        ("cpu", "torch", False, "torch"),
        ("cpu", "dgl", False, "dgl"),
        ("cuda", "auto", False, "torch"),
        ("cuda", "auto", True, "dgl"),
        ("cuda", "dgl", True, "dgl"),
    ],
)
def test_choice_of_kernel(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: str, dgl_has_cuda: bool, chosen: str
) -> None:
    monkeypatch.setattr(kernels, "_dgl_has_cuda", lambda: dgl_has_cuda)
    assert choose_kernel(torch.device(device), wanted) == chosen


def test_dgl_on_a_device_for_which_it_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_dgl_has_cuda", lambda: False)
    with pytest.raises(ValueError, match=r"kernel='dgl'.*no kernel for cuda.*use kernel='auto'"):
        choose_kernel(torch.device("cuda"), "dgl")
