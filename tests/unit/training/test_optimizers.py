"""Optimizers, schedules, clipping and optimizer state, against torch on dense embeddings and values by hand."""

from math import cos, pi, sqrt
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from braidrec.config.run import OptimizerConfig
from braidrec.models.contract import TableSpec
from braidrec.training.context import SingleProcess
from braidrec.training.optimizers import (
    build_optimizers,
    clip_gradients,
    learning_rate_factor,
    optimizer_tensors,
    restore_optimizers,
    set_learning_rate,
)
from braidrec.training.row_optimizers import RowAdam
from braidrec.training.tables import ReplicatedTable

ROWS, WIDTH, RATE = 8, 3, 0.1
ALWAYS = torch.tensor([5, 2, 0])
"""Rows that every step touches: row-wise and dense Adam agree on them."""
TORCH = {
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=RATE),
    "sparse_adam": lambda parameters: torch.optim.Adam(parameters, lr=RATE),
    "adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=RATE),
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=RATE),
}
KINDS = [("adam", False), ("sparse_adam", True), ("adagrad", False), ("adagrad", True), ("sgd", False), ("sgd", True)]


def table(*, sparse: bool) -> ReplicatedTable:
    return ReplicatedTable(TableSpec(width=WIDTH, std=1.0), ROWS, seed=2, sparse=sparse)


def config(**options: object) -> OptimizerConfig:
    return OptimizerConfig.model_validate({"learning_rate": RATE, **options})


def loss(rows: Tensor, step: int) -> Tensor:
    return ((rows - step) ** 2).sum() + rows.sin().sum()


def our_step(subject: ReplicatedTable, optimizers: list[torch.optim.Optimizer], nodes: Tensor, step: int) -> None:
    loss(subject.fetch(nodes), step).backward()
    subject.collect(SingleProcess())
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize(("kind", "sparse"), KINDS)
def test_updates_equal_torch_on_a_dense_embedding(kind: str, sparse: bool) -> None:
    """Adagrad and SGD leave rows without gradient alone, and so agree with their dense form on any rows; row-wise Adam
    does on rows that every step touches."""
    subject = table(sparse=sparse)
    embedding = nn.Embedding.from_pretrained(subject.weight.detach().clone(), freeze=False)
    theirs = TORCH[kind](embedding.parameters())
    ours = build_optimizers(config(kind=kind), [subject.weight], [], sparse=sparse)
    for step in range(6):
        nodes = ALWAYS if kind == "sparse_adam" or step % 2 else torch.tensor([1, 5, 5])
        our_step(subject, ours, nodes, step)
        theirs.zero_grad()
        loss(embedding(nodes), step).backward()
        theirs.step()
    torch.testing.assert_close(subject.weight.detach(), embedding.weight.detach(), rtol=1e-5, atol=1e-6)


def test_sparse_adam_leaves_the_other_rows_alone() -> None:
    subject = table(sparse=True)
    before = subject.weight.detach().clone()
    optimizers = build_optimizers(config(kind="sparse_adam"), [subject.weight], [], sparse=True)
    our_step(subject, optimizers, torch.tensor([1, 4]), 0)
    after_first = subject.weight.detach().clone()
    our_step(subject, optimizers, torch.tensor([4, 6]), 1)
    assert torch.equal(subject.weight[[0, 2, 3, 5, 7]], before[[0, 2, 3, 5, 7]])
    assert torch.equal(subject.weight[1], after_first[1])
    assert not torch.equal(subject.weight[4], after_first[4])


@pytest.mark.parametrize(("kind", "sparse"), KINDS)
def test_a_step_without_any_row(kind: str, sparse: bool) -> None:
    subject = table(sparse=sparse)
    optimizers = build_optimizers(config(kind=kind), [subject.weight], [], sparse=sparse)
    our_step(subject, optimizers, ALWAYS, 0)
    if kind != "adam":
        before = subject.weight.detach().clone()
        (subject.fetch(ALWAYS) * 0.0).sum().backward()
        subject.collect(SingleProcess())
        optimizers[0].step()
        assert torch.equal(subject.weight, before)


def test_the_models_own_parameters_get_an_optimizer_that_takes_dense_gradients() -> None:
    layer = nn.Linear(2, 2)
    optimizers = build_optimizers(
        config(kind="sparse_adam"), [table(sparse=True).weight], list(layer.parameters()), sparse=True
    )
    assert [type(optimizer) for optimizer in optimizers] == [RowAdam, torch.optim.Adam]
    assert sum(len(group["params"]) for group in optimizers[1].param_groups) == 2
    set_learning_rate(optimizers, 0.025)
    assert [group["lr"] for optimizer in optimizers for group in optimizer.param_groups] == [0.025, 0.025]


@pytest.mark.parametrize(("kind", "sparse"), KINDS)
def test_state_survives_a_file(kind: str, sparse: bool, tmp_path: Path) -> None:
    """Stopped after three steps and read back, the next three end at the same bits."""

    def fresh() -> tuple[ReplicatedTable, nn.Linear, list[torch.optim.Optimizer]]:
        torch.manual_seed(0)
        subject, layer = table(sparse=sparse), nn.Linear(WIDTH, WIDTH)
        return (
            subject,
            layer,
            build_optimizers(config(kind=kind), [subject.weight], list(layer.parameters()), sparse=sparse),
        )

    def train(parts: tuple[ReplicatedTable, nn.Linear, list[torch.optim.Optimizer]], steps: range) -> None:
        subject, layer, optimizers = parts
        for step in steps:
            loss(layer(subject.fetch(torch.tensor([step % ROWS, 3]))), step).backward()
            subject.collect(SingleProcess())
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

    whole, stopped = fresh(), fresh()
    train(whole, range(6))
    train(stopped, range(3))
    save_file(optimizer_tensors(stopped[2]), tmp_path / "state.safetensors")
    resumed = fresh()
    with torch.no_grad():
        resumed[0].weight.copy_(stopped[0].weight)
    resumed[1].load_state_dict(stopped[1].state_dict())
    restore_optimizers(resumed[2], load_file(tmp_path / "state.safetensors"))
    train(resumed, range(3, 6))
    assert torch.equal(resumed[0].weight, whole[0].weight)
    assert torch.equal(resumed[1].weight, whole[1].weight)
    ours, theirs = optimizer_tensors(resumed[2]), optimizer_tensors(whole[2])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


HALF = 0.5
SCHEDULES = [
    ("constant", 0, {0: 1.0, 5: 1.0, 9: 1.0}),
    ("constant", 4, {0: 0.25, 1: 0.5, 3: 1.0, 4: 1.0, 9: 1.0}),
    ("linear", 0, {0: 1.0, 1: 0.9, 9: 0.1, 10: 0.0, 12: 0.0}),
    ("linear", 2, {0: 0.5, 1: 1.0, 2: 1.0, 6: 0.5, 9: 0.125}),
    ("cosine", 0, {0: 1.0, 5: HALF, 1: HALF * (1 + cos(pi / 10)), 10: 0.0, 12: 0.0}),
    ("cosine", 2, {0: 0.5, 1: 1.0, 2: 1.0, 6: HALF, 4: HALF * (1 + sqrt(HALF))}),
    ("cosine", 20, {0: 0.05, 9: 0.5}),
]
"""Of ten steps: schedule, steps of warm-up, factors by step."""


@pytest.mark.parametrize(("schedule", "warmup", "wanted"), SCHEDULES)
def test_learning_rate_by_hand(schedule: str, warmup: int, wanted: dict[int, float]) -> None:
    factor = learning_rate_factor(config(schedule=schedule, warmup_steps=warmup), 10)
    assert {step: factor(step) for step in wanted} == pytest.approx(wanted, abs=1e-12)


def gradients() -> list[nn.Parameter]:
    """A dense gradient of norm 3 and a sparse one of norm 4: 5 together."""
    dense, rows = nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(6, 2))
    dense.grad = torch.tensor([[1.0, 2.0], [2.0, 0.0]])
    rows.grad = torch.sparse_coo_tensor(
        torch.tensor([[1, 4]]), torch.tensor([[0.0, 4.0], [0.0, 0.0]]), (6, 2), check_invariants=True
    ).coalesce()
    return [dense, rows, nn.Parameter(torch.zeros(1))]


@pytest.mark.parametrize(("largest", "factor"), [(1.0, 0.2), (4.0, 0.8), (6.0, 1.0)])
def test_clipping_scales_the_joint_norm(largest: float, factor: float) -> None:
    parameters, untouched = gradients(), gradients()
    clip_gradients(parameters, largest)
    for clipped, before in zip(parameters[:2], untouched[:2], strict=True):
        torch.testing.assert_close(clipped.grad.to_dense(), before.grad.to_dense() * factor, rtol=1e-5, atol=0)
    assert parameters[2].grad is None


def test_clipping_equals_torch_on_dense_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.zeros(size)) for size in (3, 7)]
    theirs = [nn.Parameter(torch.zeros(size)) for size in (3, 7)]
    for left, right in zip(ours, theirs, strict=True):
        left.grad = torch.randn(left.shape, generator=generator)
        right.grad = left.grad.clone()
    clip_gradients(ours, 0.7)
    torch.nn.utils.clip_grad_norm_(theirs, 0.7)
    for left, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(left.grad, right.grad)


def test_clipping_counts_a_row_fetched_twice_once() -> None:
    """The two gradients of row 3 add up to zero: nothing is left to clip."""
    subject = table(sparse=True)
    first, second, other = (subject.fetch(torch.tensor([node])) for node in (3, 3, 1))
    (first.sum() * 100 - second.sum() * 100 + other[0, 0]).backward()
    subject.collect(SingleProcess())
    clip_gradients([subject.weight], 1.0)
    wanted = torch.zeros(ROWS, WIDTH)
    wanted[1, 0] = 1.0
    torch.testing.assert_close(subject.weight.grad.to_dense(), wanted, rtol=1e-5, atol=0)


def test_clipping_nothing() -> None:
    parameter = nn.Parameter(torch.tensor([3.0, 4.0]))
    clip_gradients([parameter], 1.0)
    assert parameter.grad is None and parameter.tolist() == [3.0, 4.0]
