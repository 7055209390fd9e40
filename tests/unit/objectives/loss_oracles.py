"""The losses' formulas once more: Python numbers, one row and one pair at a time."""

from math import exp, hypot, log

import torch

from braidrec.models.contract import Batch

Row = list[float]


def dot(a: Row, b: Row) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def cosine(a: Row, b: Row) -> float:
    lengths = hypot(*a) * hypot(*b)
    return dot(a, b) / lengths if lengths else 0.0


def softplus(x: float) -> float:
    return log(1 + exp(x))


def minus_log_share(positive: float, others: list[float]) -> float:
    return -log(exp(positive) / (exp(positive) + sum(exp(other) for other in others)))


def batch_of(
    users: list[int], items: list[int], *, negatives: torch.Tensor | None = None, real: list[float] | None = None
) -> Batch:
    weight = torch.tensor(real if real is not None else [1.0] * len(users))
    return Batch(users=torch.tensor(users), items=torch.tensor(items), negatives=negatives, real=weight, weight=weight)


def random_vectors(seed: int, *shape: int, scale: float = 1.0) -> torch.Tensor:
    """Normal fp64 numbers that take a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(*shape, generator=generator, dtype=torch.float64) * scale).requires_grad_()
