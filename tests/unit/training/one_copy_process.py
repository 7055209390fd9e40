"""A process of test_one_copy_per_node.py: waits for a line, opens the run's world, reads all of it, says so, waits."""

import sys
from pathlib import Path

import numpy as np
import torch

from braidrec.config.load import load_config
from braidrec.config.run import RunConfig
from braidrec.data.folder import DatasetFolder
from braidrec.graph.neighbourhood import SampledSubgraph, hop_specs
from braidrec.graph.relation import INTERACTIONS
from braidrec.training.context import SingleProcess
from braidrec.training.environment import use_threads
from braidrec.training.world import World, open_world

ROWS_AT_ONCE = 2_000


def touch(world: World) -> float:
    """Every page of the graph and the features, in the ways in which training reads them."""
    total = float(np.add.reduce(world.interactions.indices[::512], dtype=np.int64))
    relation = world.interactions
    source = SampledSubgraph({INTERACTIONS: relation}, device=torch.device("cpu"), kernel="dgl")
    for start in range(0, 10 * ROWS_AT_ONCE, ROWS_AT_ONCE):
        seeds = torch.arange(start, start + ROWS_AT_ONCE)
        chain = source.neighbourhood(hop_specs([INTERACTIONS], [10]), seeds, step_seed=start)
        total += float(chain.hops[0].src_scale.sum())
    for start in range(0, world.folder.num_items, ROWS_AT_ONCE):
        rows = torch.arange(start, min(start + ROWS_AT_ONCE, world.folder.num_items))
        total += float(world.features.fetch("text", rows)[0].sum())
    return total


def main() -> None:
    data, cache = sys.argv[1:]
    use_threads(1)
    config = load_config(
        RunConfig,
        [Path(__file__).parents[3] / "configs" / "models" / "vbpr.yaml"],
        [f"data.path={data}", f"cache={cache}", "model.modalities.use=[text]"],
    )
    folder = DatasetFolder.open(data)
    torch.randn(64, 64) @ torch.randn(64, 64)  # what the first use of a kernel brings along belongs to no graph
    print("ready", flush=True)
    sys.stdin.readline()
    world = open_world(config, folder, SingleProcess())
    print(touch(world), flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main()
