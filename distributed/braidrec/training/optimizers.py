"""Optimizers, learning-rate schedules and gradient clipping, for the tables and the model's own parameters."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from braidrec.config.run import OptimizerConfig
from braidrec.training.row_optimizers import ROW_OPTIMIZERS, RowAdam

ROWS_ONLY = {"sparse_adam": "adam", "row_adagrad": "adagrad"}
"""Optimizers that take nothing but rows of a batch, and what updates the model's other parameters beside them."""


def build_optimizers(
    config: OptimizerConfig, tables: Sequence[nn.Parameter], parameters: Sequence[nn.Parameter], *, sparse: bool
) -> list[torch.optim.Optimizer]:
    """One optimizer for the tables, and one for the model's other parameters if it has any.

    Args:
        sparse: the tables get sparse gradients.
    """
    optimizers = [_make(config.kind, tables, config.learning_rate, sparse=sparse)] if tables else []
    if not parameters:
        return optimizers
    # For parameters that every batch touches as a whole, Adam by rows would be Adam anyway.
    return [*optimizers, _make(ROWS_ONLY.get(config.kind, config.kind), parameters, config.learning_rate, sparse=False)]


def _make(kind: str, parameters: Sequence[nn.Parameter], rate: float, *, sparse: bool) -> torch.optim.Optimizer:
    if sparse:
        return ROW_OPTIMIZERS[kind](parameters, rate)
    if kind == "adam":
        return torch.optim.Adam(parameters, lr=rate, fused=True)
    if kind == "adagrad":
        return torch.optim.Adagrad(parameters, lr=rate, foreach=True)
    return torch.optim.SGD(parameters, lr=rate, foreach=True)


def learning_rate_factor(config: OptimizerConfig, total_steps: int) -> Callable[[int], float]:
    """The factor on the learning rate as a function of the step (from 0): nothing to save, nothing to restore.

    Linear warm-up over `warmup_steps`, then constant, `½ (1 + cos π t)` or `1 − t` with t the share of the remaining
    steps that has passed.
    """

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        passed = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
        if config.schedule == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * min(passed, 1.0)))
        if config.schedule == "linear":
            return max(0.0, 1.0 - passed)
        return 1.0

    return factor


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Give every parameter group the rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def clip_gradients(
    parameters: Iterable[nn.Parameter],
    largest: float,
    *,
    dealt_out: Iterable[nn.Parameter] = (),
    total: Callable[[Tensor], Tensor] = lambda squares: squares,
) -> None:
    """Scale all gradients so that their joint L2 norm is at most `largest`; sparse gradients count their rows.

    Args:
        parameters: those that every rank holds as a whole.
        dealt_out: those of which each rank holds other rows.
        total: adds up over all ranks; called on each if anything is dealt out.
    """
    whole = [_values(parameter.grad) for parameter in parameters if parameter.grad is not None]
    shards = list(dealt_out)
    own = [_values(parameter.grad) for parameter in shards if parameter.grad is not None]
    if not whole and not shards:
        return
    norms = [torch.linalg.vector_norm(gradient) for gradient in whole]
    if shards:
        squares = [torch.linalg.vector_norm(gradient).square() for gradient in own]
        norms.append(total(torch.stack([shards[0].new_zeros(()).detach(), *squares]).sum()).sqrt())
    factor = (largest / (torch.linalg.vector_norm(torch.stack(norms)) + 1e-6)).clamp(max=1.0)
    for gradient in (*whole, *own):
        gradient.mul_(factor)


def _values(gradient: Tensor) -> Tensor:
    return gradient._values() if gradient.is_sparse else gradient


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state of all optimizers as flat named tensors, for a checkpoint."""
    return {
        f"{number}/{index}/{key}": value if isinstance(value, Tensor) else torch.tensor(value)
        for number, optimizer in enumerate(optimizers)
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }


def restore_optimizers(optimizers: Sequence[torch.optim.Optimizer], tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimizer_tensors`. Scalars that the optimizer keeps as numbers become numbers again."""
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Any]] = {}
        for name, tensor in tensors.items():
            owner, index, key = name.split("/")
            if int(owner) == number:
                entry = state.setdefault(int(index), {})
                # Adam by rows counts its steps in a plain number, the others in a tensor.
                as_number = key == "step" and isinstance(optimizer, RowAdam)
                entry[key] = int(tensor) if as_number else tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
