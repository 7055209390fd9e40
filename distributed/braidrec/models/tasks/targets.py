"""Which rows of the seeds a task is about."""

from typing import Literal

import torch
from torch import Tensor

from braidrec.models.contract import Inputs, StepContext

Side = Literal["users", "items"]
Target = Literal["users", "items", "both"]

PARTS: dict[Target, tuple[str, ...]] = {"users": ("",), "items": ("",), "both": ("/users", "/items")}
"""Users and items are compared among their own kind, and the two means are added."""


def side_of(target: Target, part: str) -> Side:
    """The side that a part of a task is about."""
    if target != "both":
        return target
    return "users" if part == "/users" else "items"


def rows_of_side(side: Side, inputs: Inputs, step: StepContext) -> Tensor:
    """Places among the seeds of the nodes that stand as user, or as positive item, in a real row of the batch.

    Negatives are drawn at random and stay out of it, as they do in the published systems.
    """
    assert inputs.seeds is not None
    in_batch = torch.zeros(len(inputs.seeds), dtype=torch.bool, device=inputs.seeds.device)
    size = step.batch.size
    places = step.places[:size] if side == "users" else step.places[size : 2 * size]
    in_batch[places[step.batch.real > 0]] = True
    return in_batch.nonzero().squeeze(-1)
