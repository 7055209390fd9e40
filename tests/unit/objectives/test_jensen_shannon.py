"""The Jensen–Shannon bound against a loop over pairs; random negatives by how often each is drawn."""

from collections import Counter
from math import log

import pytest
import torch
from loss_oracles import dot, random_vectors, softplus
from scipy.stats import chisquare
from torch import nn

from braidrec.objectives.self_supervised.candidates import draw_negatives
from braidrec.objectives.self_supervised.jensen_shannon import JensenShannon

IDS = torch.tensor([4, 7, 4, 2, 7, 9])
WEIGHT = torch.tensor([1.0, 0.5, 1.0, 0.0, 0.0, 2.0])
N, D = 6, 3


def negatives_of(row: int) -> list[int]:
    return [j for j in range(N) if WEIGHT[j] > 0 and IDS[j] != IDS[row]]


def bilinear() -> nn.Linear:
    torch.manual_seed(2)
    return nn.Linear(D, D, bias=False).double()


@pytest.mark.parametrize("transform", [None, bilinear()], ids=["inner product", "bilinear"])
def test_all_negatives(transform: nn.Linear | None) -> None:
    loss = JensenShannon(transform=transform)
    first, second = random_vectors(1, N, D), random_vectors(2, N, D)
    matrix = transform.weight.tolist() if transform is not None else torch.eye(D).tolist()

    def discriminator(row: int, other: int) -> float:
        return dot([dot(line, first[row].tolist()) for line in matrix], second[other].tolist())

    def wanted(row: int) -> float:
        others = negatives_of(row)
        mean = sum(softplus(discriminator(row, other)) for other in others) / len(others)
        return softplus(-discriminator(row, row)) + mean

    rows = loss.rows(first, second, WEIGHT, IDS)
    assert rows.tolist() == pytest.approx([wanted(row) for row in range(N)], rel=1e-10)
    inputs = (first, second, *loss.parameters())
    assert len(inputs) == 2 + (transform is not None)
    assert torch.autograd.gradcheck(lambda a, b, *_: loss.rows(a, b, WEIGHT, IDS), inputs)


def test_one_negative_is_one_of_all() -> None:
    """Each value is the positive's term and that of a negative; over many seeds the mean is that over all."""
    first, second = random_vectors(1, N, D).detach(), random_vectors(2, N, D).detach()
    terms = [[softplus(dot(first[i].tolist(), second[j].tolist())) for j in negatives_of(i)] for i in range(N)]
    draws = []
    for seed in range(300):
        torch.manual_seed(seed)
        draws.append(JensenShannon(negatives="one").rows(first, second, WEIGHT, IDS))
    for row in range(N):
        positive = softplus(-dot(first[row].tolist(), second[row].tolist()))
        seen = {round(float(draw[row]) - positive, 9) for draw in draws}
        assert seen == {round(term, 9) for term in terms[row]}
    everything = JensenShannon().rows(first, second, WEIGHT, IDS)
    drawn = torch.stack(draws)
    error = drawn.std(0) / len(draws) ** 0.5
    assert ((drawn.mean(0) - everything).abs() < 4 * error).all()


def test_draws_are_uniform_over_the_other_nodes() -> None:
    candidates = torch.tensor([5, 1, 5, 3, 8, 1])
    taking_part = torch.tensor([True, True, True, True, False, True])
    torch.manual_seed(1)
    for node, allowed in ((5, [1, 3, 5]), (1, [0, 2, 3]), (8, [0, 1, 2, 3, 5]), (0, [0, 1, 2, 3, 5])):
        drawn, exists = draw_negatives(torch.full((3000,), node), candidates, taking_part)
        assert exists.all()
        counts = Counter(drawn.tolist())
        assert sorted(counts) == allowed
        assert chisquare([counts[position] for position in allowed]).pvalue > 1e-4


@pytest.mark.parametrize("negatives", ["all", "one"])
def test_without_negatives_the_positive_is_left(negatives: str) -> None:
    loss = JensenShannon(negatives=negatives)
    for weight, ids in ((torch.ones(3), torch.tensor([6, 6, 6])), (torch.zeros(3), torch.arange(3))):
        first, second = random_vectors(1, 3, D), random_vectors(2, 3, D)
        rows = loss.rows(first, second, weight, ids)
        torch.testing.assert_close(rows, nn.functional.softplus(-(first * second).sum(-1)))
        rows.sum().backward()
        assert torch.isfinite(first.grad).all() and torch.isfinite(second.grad).all()
    none = torch.zeros(0, D)
    assert loss.rows(none, none, torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0,)


@pytest.mark.parametrize("negatives", ["all", "one"])
def test_rows_without_weight_move_nothing(negatives: str) -> None:
    torch.manual_seed(0)
    first, second = random_vectors(1, N, D), random_vectors(2, N, D)
    rows = JensenShannon(negatives=negatives).rows(first, second, WEIGHT, IDS)
    (rows * WEIGHT).sum().backward()
    for view in (first, second):
        assert not view.grad[3:5].any() and view.grad[[0, 1, 2, 5]].any(-1).all()


def test_a_discriminator_that_knows_nothing_pays_two_bits() -> None:
    zeros = torch.zeros(4, D)
    for negatives in ("all", "one"):
        rows = JensenShannon(negatives=negatives).rows(zeros, zeros, torch.ones(4), torch.arange(4))
        assert rows.tolist() == pytest.approx([2 * log(2)] * 4)
