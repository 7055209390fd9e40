"""A table dealt out over one, two and three processes: what it fetches, and gradients as those of a plain embedding."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from process_pair import Pair, Trio
from sharded_tasks import (
    ROWS,
    exchange,
    fetch_and_collect,
    initial_rows,
    memory_of_ranks,
    shares_memory,
    train_steps,
)
from step_cases import STEPS, Case, shares, some_rows, train

from braidrec.models.contract import ROWS_DRAWN_AT_ONCE, TableSpec
from braidrec.training.context import SingleProcess

SLOW = pytest.mark.slow
GROUPS = ["pair", "trio"]
OPTIMIZERS = {"mf": "sparse_adam", "mf with biases": "adagrad", "lightgcn, full": "adam", "lightgcn, sampled": "adam"}
CASES: dict[str, Case] = {
    **STEPS,
    **{f"{name}, {kind}": replace(STEPS[name], optimizer=kind) for name, kind in OPTIMIZERS.items()},
    "mf, adam by rows": replace(STEPS["lightgcn, sampled"], optimizer="sparse_adam"),
    "mf, adagrad with one number a row": replace(STEPS["mf"], optimizer="row_adagrad"),
    "own parameter": Case(model="mf_scaled", optimizer="adam"),
    "clipped": Case(gradient_clip=0.01),
    "own parameter, clipped": Case(model="mf_scaled", gradient_clip=0.01, optimizer="adagrad"),
}


@pytest.fixture(params=[1, *(pytest.param(size, marks=SLOW) for size in (2, 3))])
def ranks(request: pytest.FixtureRequest) -> Any:
    """Runs a function on as many ranks, argument by argument, and returns what each returned."""
    if request.param == 1:
        return 1, lambda function, *arguments: [function(SingleProcess(), *(argument[0] for argument in arguments))]
    group: Pair | Trio = request.getfixturevalue(GROUPS[request.param - 2])
    return request.param, group.run


def plain_gradient(fetches: list[list[list[int] | None]], unused: bool) -> np.ndarray:
    """Of all ranks' losses together, on an embedding that knows nothing of ranks."""
    embedding = initial_rows().requires_grad_()
    total = embedding.new_zeros(())
    for of_rank in fetches:
        for number, nodes in enumerate(of_rank[:-1] if unused else of_rank):
            rows = embedding if nodes is None else torch.nn.functional.embedding(torch.tensor(nodes).long(), embedding)
            total = total + (number + 1) * ((rows**3).sum() + rows.prod(-1).sum())
    total.backward()
    return embedding.grad.numpy()


FETCHES = {
    "distinct": [[[7, 0, 49]], [[7, 1]], [[33, 2, 7]]],
    "repeated, unsorted": [[[3, 3, 48, 0, 3]], [[48, 3, 48]], [[20, 20]]],
    "several": [[[3, 9], [9, 9, 40]], [[9], [0, 1]], [[44], [3]]],
    "none on a rank": [[[5, 30]], [[]], [[5, 31]]],
    "only of the last rank": [[[48, 49]], [[49]], [[49, 49]]],
    "all": [[None, [2, 2]], [None, [3]], [None, []]],
}


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("unused", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("fetches", FETCHES.values(), ids=FETCHES.keys())
def test_rows_and_gradients(
    ranks: Any, fetches: list[list[list[int] | None]], sparse: bool, unused: bool, apart: bool
) -> None:
    size, run = ranks
    if unused and len(fetches[0]) == 1:
        fetches = [[*of_rank, [11, 12]] for of_rank in fetches]
    found = run(fetch_and_collect, fetches[:size], [sparse] * size, [None] * size, [unused] * size, [apart] * size)
    table, wanted = initial_rows().numpy(), plain_gradient(fetches[:size], unused)
    assert found[0]["held"][0] == 0 and found[-1]["held"][1] == ROWS
    for rank, got in enumerate(found):
        for rows, nodes in zip(got["fetched"], fetches[rank], strict=True):
            np.testing.assert_array_equal(rows, table if nodes is None else table[np.array(nodes, int)])
        np.testing.assert_allclose(got["gradient"], wanted[slice(*got["held"])], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(got["all"], table)
    if sparse and not unused and None not in fetches[0]:
        fetched = {node for of_rank in fetches[:size] for nodes in of_rank for node in nodes}
        assert sorted(row + got["held"][0] for got in found for row in got["rows"]) == sorted(fetched)


@pytest.mark.parametrize("size", [pytest.param(size, marks=SLOW) for size in (2, 3)])
def test_bf16_on_the_wire_rounds_what_travels_and_nothing_else(size: int, request: pytest.FixtureRequest) -> None:
    group: Pair = request.getfixturevalue(GROUPS[size - 2])
    nodes = list(range(ROWS))
    found = group.run(fetch_and_collect, [[nodes]] * size, [True] * size, [torch.bfloat16] * size, [False] * size)
    table = initial_rows()
    for got in found:
        own, rows = slice(*got["held"]), torch.from_numpy(got["fetched"][0])
        wanted = table.bfloat16().float()
        wanted[own] = table[own]
        assert torch.equal(rows, wanted) and not torch.equal(rows, table)
        exact = plain_gradient([[nodes]] * size, False)[own]
        error = np.abs(got["gradient"] - exact).max() / np.abs(exact).max()
        assert 0 < error < 2**-7  # eight bits: each summand of a cube is off by 2 × 2⁻⁹ at most, and again by 2⁻⁹
        np.testing.assert_array_equal(got["all"], table)  # which is never rounded


@pytest.mark.parametrize("size", [pytest.param(size, marks=SLOW) for size in (2, 3)])
def test_ranks_on_one_machine_share_memory(size: int, request: pytest.FixtureRequest) -> None:
    group: Pair = request.getfixturevalue(GROUPS[size - 2])
    assert group.run(shares_memory, [False] * size) == [True] * size
    assert group.run(shares_memory, [True] * size) == [False] * size
    assert group.run(memory_of_ranks, [None] * size) == [[7 + rank for rank in range(size)] + [0] * (5 - size)] * size
    assert group.run(memory_of_ranks, [size - 1] * size) == [None] * size, "where one rank has none, none has"


PLACES = [(1, False), *(pytest.param(size, apart, marks=SLOW) for size in (2, 3) for apart in (False, True))]


@pytest.mark.parametrize(("size", "apart"), PLACES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_steps_as_with_a_replicated_table(case: Case, size: int, apart: bool, request: pytest.FixtureRequest) -> None:
    """Three steps with uneven weights and padding: losses, gradients, rows, and the model's own parameters."""
    batches = [some_rows(0), some_rows(1, real=4, padding=4), some_rows(2, real=9, padding=0)]
    wanted, sharded = train(case, batches), replace(case, sharded=True)
    if size == 1:
        found = [train(sharded, batches)]
    else:
        group: Pair = request.getfixturevalue(GROUPS[size - 2])
        split = [shares(rows, size) for rows in batches]
        found = group.run(
            train_steps, [sharded] * size, [[parts[rank] for parts in split] for rank in range(size)], [apart] * size
        )
    for name in wanted:
        dealt_out = name in ("gradients", "tables")
        for step, values in enumerate(wanted[name]):
            of_ranks = [of_rank[name][step] for of_rank in found]
            got = np.concatenate(of_ranks) if dealt_out else of_ranks[0]
            # Adam divides by the root of a gradient's square: where that is rounding noise, so is its update.
            loose = case.optimizer in ("adam", "sparse_adam") and name != "losses"
            np.testing.assert_allclose(got, values, rtol=1e-6 if loose else 1e-9, atol=1e-9, err_msg=name)
            if not dealt_out:
                assert all(np.array_equal(of_rank, got) for of_rank in of_ranks)
    assert np.abs(wanted["tables"][-1] - wanted["tables"][0]).max() > 1e-3


@pytest.mark.parametrize("size", [pytest.param(size, marks=SLOW) for size in (2, 3)])
def test_rows_are_exchanged(size: int, request: pytest.FixtureRequest) -> None:
    group: Pair = request.getfixturevalue(GROUPS[size - 2])
    generator = np.random.default_rng(0)
    for most in (4, 1):  # with 1, mostly nothing
        sent = [generator.integers(0, most, size).tolist() for _ in range(size)]
        rows = [generator.normal(size=(sum(counts), 2)).astype(np.float32) for counts in sent]
        pieces = [np.split(part, np.cumsum(counts)[:-1]) for part, counts in zip(rows, sent, strict=True)]
        for rank, (arrived, counts) in enumerate(group.run(exchange, rows, sent)):
            np.testing.assert_array_equal(arrived, np.concatenate([of_rank[rank] for of_rank in pieces]))
            assert counts == [of_rank[rank] for of_rank in sent]


@pytest.mark.parametrize(
    ("rows", "width"),
    [(5, 2), (40, 3), (ROWS_DRAWN_AT_ONCE, 1), (ROWS_DRAWN_AT_ONCE + 1, 3), (2 * ROWS_DRAWN_AT_ONCE + 17, 1)],
)
def test_a_part_of_the_initial_rows_is_what_drawing_them_at_once_gives(rows: int, width: int) -> None:
    """Also one by one the parts of them that ranks hold."""
    wanted = torch.randn(rows, width, generator=torch.Generator().manual_seed(5)) * 0.25
    spec = TableSpec(width=width, std=0.25)
    cuts = [0, rows // 3, rows // 3, rows - 1, rows]
    for start, stop in itertools.pairwise(cuts):
        part = spec.initialise(rows, torch.Generator().manual_seed(5), range(start, stop))
        assert torch.equal(part, wanted[start:stop])
    assert torch.equal(spec.initialise(rows, torch.Generator().manual_seed(5)), wanted)
