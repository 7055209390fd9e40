"""Optimizers by rows against torch's sparse ones, against a loop over rows, and what they leave alone."""

from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from braidrec.training.row_optimizers import ROW_OPTIMIZERS, RowAdagrad, RowAdam, RowOptimizer

ROWS, WIDTH, RATE, STEPS = 30, 5, 0.07, 6
TORCH = {
    "sparse_adam": lambda parameter: torch.optim.SparseAdam([parameter], lr=RATE),
    "adagrad": lambda parameter: torch.optim.Adagrad([parameter], lr=RATE),
    "sgd": lambda parameter: torch.optim.SGD([parameter], lr=RATE),
}


@pytest.fixture(autouse=True)
def _unchecked() -> None:
    """torch's own make sparse tensors, and warn unless told whether to check them."""
    torch.sparse.check_sparse_tensor_invariants.disable()


def start() -> nn.Parameter:
    return nn.Parameter(torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1)))


def gradient(step: int) -> tuple[Tensor, Tensor]:
    """Another set of distinct rows each step, of very different magnitudes."""
    generator = torch.Generator().manual_seed(100 + step)
    rows = torch.randperm(ROWS, generator=generator)[: 3 + 4 * step].sort().values
    return rows, torch.randn(len(rows), WIDTH, generator=generator) * 10.0 ** (step - 3)


def put(parameter: nn.Parameter, rows: Tensor, values: Tensor) -> None:
    parameter.grad = torch.sparse_coo_tensor(rows.unsqueeze(0), values, parameter.shape, check_invariants=False)


@pytest.mark.parametrize("kind", TORCH)
def test_as_torch(kind: str) -> None:
    ours, theirs = start(), start()
    mine, reference = ROW_OPTIMIZERS[kind]([ours], RATE), TORCH[kind](theirs)
    for step in range(STEPS):
        for parameter, optimizer in ((ours, mine), (theirs, reference)):
            put(parameter, *gradient(step))
            optimizer.step()
        torch.testing.assert_close(ours.detach(), theirs.detach(), rtol=1e-6, atol=1e-7)
    assert (ours - start()).abs().max() > 10 * RATE * RATE
    for name, wanted in reference.state[theirs].items():
        if name == "step" and kind == "adagrad":
            continue  # which only a decaying rate would look at
        torch.testing.assert_close(torch.as_tensor(mine.state[ours][name]), torch.as_tensor(wanted))


def test_adagrad_with_one_number_a_row_against_a_loop() -> None:
    ours = start()
    weights, state = ours.detach().double().tolist(), [0.0] * ROWS
    optimizer = RowAdagrad([ours], RATE)
    for step in range(STEPS):
        rows, values = gradient(step)
        put(ours, rows, values)
        optimizer.step()
        for row, g in zip(rows.tolist(), values.double().tolist(), strict=True):
            state[row] += sum(x * x for x in g) / WIDTH
            weights[row] = [w - RATE * x / (sqrt(state[row]) + 1e-10) for w, x in zip(weights[row], g, strict=True)]
    torch.testing.assert_close(ours.detach(), torch.tensor(weights), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(optimizer.state[ours]["sum"], torch.tensor(state), rtol=1e-5, atol=1e-9)
    assert optimizer.state[ours]["sum"].shape == (ROWS,)


@pytest.mark.parametrize("kind", ROW_OPTIMIZERS)
def test_other_rows_stay_to_the_last_bit(kind: str) -> None:
    parameter = start()
    optimizer = ROW_OPTIMIZERS[kind]([parameter], RATE)
    put(parameter, torch.arange(ROWS), torch.ones(ROWS, WIDTH))
    optimizer.step()
    before, rows = parameter.detach().clone(), torch.tensor([2, 9])
    put(parameter, rows, torch.ones(2, WIDTH))
    optimizer.step()
    moved = (parameter.detach() != before).any(-1)
    assert moved.nonzero().squeeze(1).tolist() == rows.tolist()


def test_a_row_with_a_zero_gradient_is_not_moved_by_its_momentum() -> None:
    parameter = start()
    optimizer = RowAdam([parameter], RATE)
    put(parameter, torch.arange(ROWS), torch.ones(ROWS, WIDTH))
    optimizer.step()
    before = parameter.detach().clone()
    put(parameter, torch.tensor([2, 9]), torch.stack([torch.zeros(WIDTH), torch.full((WIDTH,), 0.5)]))
    optimizer.step()
    assert torch.equal(parameter[2], before[2]) and not torch.equal(parameter[9], before[9])
    put(parameter, torch.tensor([4]), torch.full((1, WIDTH), torch.nan))
    optimizer.step()
    assert parameter[4].isnan().all()


@pytest.mark.parametrize("kind", ROW_OPTIMIZERS)
def test_a_dense_gradient_is_one_of_all_rows(kind: str) -> None:
    by_rows, dense = start(), start()
    values = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(3))
    for parameter in (by_rows, dense):
        optimizer = ROW_OPTIMIZERS[kind]([parameter], RATE)
        for _ in range(2):
            if parameter is dense:
                parameter.grad = values.clone()
            else:
                put(parameter, torch.arange(ROWS), values.clone())
            optimizer.step()
    assert torch.equal(by_rows, dense) and not torch.equal(dense, start())


@pytest.mark.parametrize("kind", ROW_OPTIMIZERS)
def test_no_rows_at_all_counts_as_a_step(kind: str) -> None:
    """A rank none of whose rows were wanted must count as the others do."""
    seen = []
    for with_empty_step in (True, False):
        parameter = start()
        optimizer: RowOptimizer = ROW_OPTIMIZERS[kind]([parameter], RATE)
        if with_empty_step:
            put(parameter, torch.empty(0, dtype=torch.int64), torch.empty(0, WIDTH))
            optimizer.step()
            assert torch.equal(parameter, start())
        put(parameter, *gradient(2))
        optimizer.step()
        seen.append(parameter.detach())
    assert torch.equal(*seen) == (kind != "sparse_adam")
