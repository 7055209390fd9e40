"""What the tests of models let both ranks do; imported by the spawned processes."""

from pathlib import Path
from typing import Any

import numpy as np
from design_points import build, two_steps, values_of

from braidrec.config.run import RunConfig
from braidrec.training.context import WorkerContext


def train_two_steps(context: WorkerContext, config: RunConfig, place: Path) -> dict[str, Any]:
    """Loss terms of two steps, the largest update, and every table and parameter afterwards."""
    parts = build(config, context)
    before = values_of(parts)
    losses = two_steps(config, parts, context, place, alike=True)
    after = {name: value.double().numpy() for name, value in values_of(parts).items()}
    moved = {name: float(np.abs(value - before[name].double().numpy()).max()) for name, value in after.items()}
    return {"losses": losses, "after": after, "moved": moved}
