"""Loss curves that are kept in `golden_curves.json`, and the program that writes them anew:

    python tests/golden/golden_curves.py

To write them anew is legitimate when the numbers were *meant* to change: another initialisation, order of the data,
sampler of negatives, loss, normalisation or optimizer, or another definition of a metric. The commit then says which,
and why the new numbers are right. It is not when a refactoring, a faster kernel or a newer dependency moved them: then
something that nobody meant to touch has changed.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.data.planted import generate_planted
from braidrec.graph.dgl_import import dgl
from braidrec.training.driver import train

FILE = Path(__file__).with_suffix(".json")
RUNS: Mapping[str, tuple[str, ...]] = {
    "lightgcn": ("model.encoder.layers=3", "training.propagation.mode=full"),
    "mf": ("model.encoder.kind=mf", "model.encoder.biases=true"),
}
KEPT = ("train/loss_term", "train/regulariser_term")
"""Not the ranking metrics: they are computed in single precision, where a near tie may fall either way."""

Curves = dict[str, dict[str, list[float]]]
"""By run, then by metric: one value an epoch."""


def compute() -> Curves:
    """Five epochs of every run in double precision on one thread, so that they are the same on all processors."""
    with tempfile.TemporaryDirectory() as name, _double_precision():
        folder = Path(name)
        generate_planted(
            str(folder / "data"), num_users=40, num_items=30, num_interactions=500, num_topics=3, modalities={}
        )
        return {run: _curve(folder, run, overrides) for run, overrides in RUNS.items()}


def _curve(folder: Path, name: str, overrides: tuple[str, ...]) -> dict[str, list[float]]:
    config = load_config(
        RunConfig,
        [],
        [
            f"name={name}", f"data.path={folder / 'data'}", f"storage={folder / 'runs'}", f"cache={folder / 'cache'}",
            "tracking.enabled=false", "workers.num=0", "workers.threads=1", "seed=2024", "model.dim=8",
            "objective.regulariser=0.01", "training.epochs=5", "training.batch_size=64",
            "training.optimizer.learning_rate=0.02", "evaluation.at=[10]", "evaluation.monitor=recall@10", *overrides,
        ],
    )  # fmt: skip
    train(config)
    lines = (folder / "runs" / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(line)["metrics"] for line in lines]
    return {metric: [epoch[metric] for epoch in epochs] for metric in KEPT}


@contextmanager
def _double_precision() -> Iterator[None]:
    kind, threads = torch.get_default_dtype(), dgl.utils.get_num_threads()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(kind)
        torch.set_num_threads(threads)
        dgl.utils.set_num_threads(threads)


if __name__ == "__main__":
    FILE.write_text(json.dumps(compute(), indent=1) + "\n", encoding="utf-8")
