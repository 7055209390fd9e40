"""The replicated table in one process: gradients as autograd gives them for a plain embedding."""

import pytest
import torch
from torch import Tensor

from braidrec.models.contract import TableSpec
from braidrec.training.context import SingleProcess
from braidrec.training.row_optimizers import ROW_OPTIMIZERS
from braidrec.training.tables import ReplicatedTable

ROWS, WIDTH = 9, 3
DISTINCT = torch.tensor([7, 0, 3])
REPEATED = torch.tensor([3, 3, 8, 0, 3])


def table(*, sparse: bool) -> ReplicatedTable:
    return ReplicatedTable(TableSpec(width=WIDTH, std=1.0), ROWS, seed=4, sparse=sparse)


def loss(parts: list[Tensor]) -> Tensor:
    """Not linear, and different for each fetch."""
    return sum((number + 1) * (rows**2).sum() + rows.prod(-1).sum() for number, rows in enumerate(parts))


def plain_gradient(weight: Tensor, fetches: list[Tensor | None]) -> Tensor:
    embedding = weight.detach().clone().requires_grad_()
    parts = [embedding if nodes is None else torch.nn.functional.embedding(nodes, embedding) for nodes in fetches]
    loss(parts).backward()
    return embedding.grad


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "fetches",
    [[DISTINCT], [REPEATED], [DISTINCT, REPEATED], [REPEATED, REPEATED, DISTINCT]],
    ids=["distinct", "repeated", "two fetches", "three fetches"],
)
def test_gradients_of_fetched_rows(sparse: bool, fetches: list[Tensor]) -> None:
    subject = table(sparse=sparse)
    parts = [subject.fetch(nodes) for nodes in fetches]
    assert all(torch.equal(rows.detach(), subject.weight[nodes]) for rows, nodes in zip(parts, fetches, strict=True))
    loss(parts).backward()
    subject.collect(SingleProcess())
    assert subject.weight.grad.is_sparse == sparse
    torch.testing.assert_close(subject.weight.grad.to_dense(), plain_gradient(subject.weight, fetches))
    if sparse:
        touched = sorted(set(torch.cat(fetches).tolist()))
        assert subject.weight.grad.is_coalesced()
        assert sorted(subject.weight.grad._indices()[0].tolist()) == touched, "each row once"


@pytest.mark.parametrize("fetches", [[None], [None, REPEATED], [DISTINCT, None]])
def test_gradients_of_the_whole_table(fetches: list[Tensor | None]) -> None:
    subject = table(sparse=False)
    loss([subject.fetch(nodes) for nodes in fetches]).backward()
    subject.collect(SingleProcess())
    torch.testing.assert_close(subject.weight.grad, plain_gradient(subject.weight, fetches))


@pytest.mark.parametrize("sparse", [False, True])
def test_a_step_leaves_nothing_for_the_next(sparse: bool) -> None:
    subject = table(sparse=sparse)
    loss([subject.fetch(DISTINCT)]).backward()
    subject.collect(SingleProcess())
    subject.weight.grad = None
    loss([subject.fetch(REPEATED)]).backward()
    subject.collect(SingleProcess())
    torch.testing.assert_close(subject.weight.grad.to_dense(), plain_gradient(subject.weight, [REPEATED]))
    subject.weight.grad = None
    subject.collect(SingleProcess())
    assert subject.weight.grad is None


@pytest.mark.parametrize("sparse", [False, True])
def test_rows_fetched_without_gradient_take_no_part(sparse: bool) -> None:
    subject = table(sparse=sparse)
    with torch.no_grad():
        subject.fetch(REPEATED)
    loss([subject.fetch(DISTINCT)]).backward()
    subject.collect(SingleProcess())
    torch.testing.assert_close(subject.weight.grad.to_dense(), plain_gradient(subject.weight, [DISTINCT]))


def test_a_row_without_influence_stays_where_it_is() -> None:
    """Padding reaches rows whose gradient is zero; Adam would go on moving them by their momentum."""
    subject = table(sparse=True)
    optimizer = ROW_OPTIMIZERS["sparse_adam"](subject.parameters(), lr=0.1)
    for factors in (torch.ones(3, 1), torch.tensor([[1.0], [0.0], [2.0]])):
        before = subject.weight.detach().clone()
        (subject.fetch(DISTINCT) * factors).sum().backward()
        subject.collect(SingleProcess())
        optimizer.step()
        optimizer.zero_grad()
        moved = (subject.weight.detach() != before).any(1).nonzero().squeeze(1).tolist()
        assert moved == ([0, 3, 7] if factors.all() else [3, 7])


def test_initial_rows_are_a_function_of_the_seed() -> None:
    spec = TableSpec(width=WIDTH, std=1.0)
    first, again, other = (ReplicatedTable(spec, ROWS, seed=seed, sparse=False) for seed in (4, 4, 5))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)


def test_all_rows_have_no_gradient() -> None:
    subject = table(sparse=False)
    assert not subject.all_rows().requires_grad
    assert torch.equal(subject.all_rows(), subject.weight)
