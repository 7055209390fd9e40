"""What the tests of inference in tiles let all ranks do; imported by the spawned processes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from design_points import build

from braidrec.config.run import RunConfig
from braidrec.training.build import Parts
from braidrec.training.context import WorkerContext
from braidrec.training.inference import Inference
from braidrec.training.validation import attention_metrics, encode_all


def encoded_as(parts: Parts, kind: str, rows_at_most: int, cache: Path) -> tuple[np.ndarray, dict[str, float]]:
    """Vectors of all nodes, and the metrics of attention."""
    wanted = Inference(kind, "as the test wants", rows_at_most, cache)
    encoded = encode_all(replace(parts, inference=wanted))
    return encoded.vectors.clone().numpy(), attention_metrics(parts, encoded)


def both_ways(
    context: WorkerContext, config: RunConfig, rows_at_most: int, cache: Path
) -> tuple[np.ndarray, np.ndarray, bool]:
    """At once and in tiles, with the parameters that the seed gives; and whether nothing is left in the folder."""
    parts = build(config, context)
    whole, _ = encoded_as(parts, "whole", rows_at_most, cache)
    tiled, _ = encoded_as(parts, "tiled", rows_at_most, cache)
    context.barrier()
    return whole, tiled, not list(cache.iterdir())
