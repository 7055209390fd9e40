"""Optimizers, learning-rate schedules and gradient clipping, for the tables and the model's own parameters."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from braidrec.config.run import OptimizerConfig

SPARSE_KINDS = ("sparse_adam", "adagrad", "sgd")
"""Optimizers that can update only the rows of the batch."""


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
    # SparseAdam takes no dense gradients; for parameters that every batch touches it would be Adam anyway.
    dense_kind = "adam" if config.kind == "sparse_adam" else config.kind
    return [*optimizers, _make(dense_kind, parameters, config.learning_rate, sparse=False)]


def _make(kind: str, parameters: Sequence[nn.Parameter], rate: float, *, sparse: bool) -> torch.optim.Optimizer:
    if kind == "adam":
        return torch.optim.Adam(parameters, lr=rate, fused=True)
    if kind == "sparse_adam":
        return torch.optim.SparseAdam(list(parameters), lr=rate)
    if kind == "adagrad":
        if sparse:
            # It makes sparse tensors itself. Not to check them is torch's default, of which it warns unless told so.
            torch.sparse.check_sparse_tensor_invariants.disable()  # type: ignore[no-untyped-call]
        return torch.optim.Adagrad(parameters, lr=rate, foreach=None if sparse else True)
    return torch.optim.SGD(parameters, lr=rate, foreach=None if sparse else True)


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


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Scale all gradients so that their joint L2 norm is at most `largest`; sparse gradients count their rows."""
    gradients = [_values(parameter.grad) for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
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
                # SparseAdam counts its steps in a plain number, the others in a tensor.
                as_number = key == "step" and isinstance(optimizer, torch.optim.SparseAdam)
                entry[key] = int(tensor) if as_number else tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
