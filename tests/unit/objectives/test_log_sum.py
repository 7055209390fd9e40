"""The sum over candidates by tiles against torch's own operations on the whole matrix, and rows that count often."""

import pytest
import torch
from loss_oracles import random_vectors

from braidrec.objectives.log_sum import ROWS_AT_ONCE, log_sum_exp_products
from braidrec.objectives.self_supervised.info_nce import InfoNCE

ROWS, CANDIDATES, D = 2 * ROWS_AT_ONCE + 3, 41, 5
"""Tiles of two sizes."""


@pytest.mark.parametrize("has_offset", [True, False])
def test_values_and_gradients_are_those_of_logsumexp(has_offset: bool) -> None:
    queries, keys = random_vectors(1, ROWS, D, scale=3.0), random_vectors(2, CANDIDATES, D)
    offset = random_vectors(3, CANDIDATES).detach() if has_offset else None
    allowed = torch.rand(ROWS, CANDIDATES, generator=torch.Generator().manual_seed(4)) < 0.6
    weight = random_vectors(5, ROWS).detach()
    logits = queries @ keys.T + (0.0 if offset is None else offset)
    wanted = torch.logsumexp(logits.masked_fill(~allowed, -torch.inf), dim=-1)
    out = log_sum_exp_products(queries, keys, allowed.__getitem__, offset)
    torch.testing.assert_close(out, wanted)
    gradients = [torch.autograd.grad((weight * values).sum(), (queries, keys)) for values in (out, wanted)]
    torch.testing.assert_close(*gradients)


def test_a_row_without_candidates_is_far_below_and_moves_nothing() -> None:
    queries, keys = random_vectors(1, 2, D), random_vectors(2, 3, D)
    allowed = torch.tensor([[False] * 3, [True, False, True]])
    out = log_sum_exp_products(queries, keys, allowed.__getitem__)
    assert out[0] < -1e300
    out.sum().backward()
    assert not queries.grad[0].any() and queries.grad[1].all() and not keys.grad[1].any()


@pytest.mark.parametrize("negatives_from", ["second", "both"])
def test_a_row_that_counts_often_is_as_many_rows(negatives_from: str) -> None:
    loss = InfoNCE(temperature=0.3, negatives_from=negatives_from)
    first, second = random_vectors(1, 4, D), random_vectors(2, 4, D)
    ids, counts = torch.tensor([7, 2, 9, 4]), torch.tensor([3.0, 1.0, 2.0, 0.0])
    once = (loss.rows(first, second, counts, ids, counts) * counts).sum()
    often = torch.tensor([0, 0, 0, 1, 2, 2])
    wanted = loss.rows(first[often], second[often], torch.ones(6), ids[often]).sum()
    torch.testing.assert_close(once, wanted)
    gradients = [torch.autograd.grad(value, (first, second)) for value in (once, wanted)]
    torch.testing.assert_close(*gradients)
