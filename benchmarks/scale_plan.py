"""Memory, traffic and time per step as formulas (docs/scaling.md), for graphs and machines that are not here.

    python benchmarks/scale_plan.py                 the tables of docs/scaling.md
    python benchmarks/scale_plan.py --check         what the formulas say of the graphs that were measured

Popularity of users and items follows the power laws of benchmarks/scale_data.py.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scale_data import ITEM_EXPONENT, USER_EXPONENT

NANOSECONDS_PER_EDGE = 100.0
"""Drawing it, on one core."""
NANOSECONDS_PER_ROW = 390.0
"""Fetching, propagating forward and backward, and updating one input row of 64 numbers, on one core. The constants
were chosen for the measurements in docs/scaling.md."""
NANOSECONDS_PER_SHARED_ROW = 110.0
"""Besides, where rows are dealt out over several workers: gradients change hands in memory."""
NANOSECONDS_PER_SENT_ROW = 160.0
"""Besides these, where the workers are on several machines: rows and gradients are packed for each other."""
PROCESS_BYTES = 450e6
"""Python, torch and DGL."""
BUFFERS_PER_ROW = 8
"""Tensors of the size of the input rows that a step holds at its peak."""
GRID = 4_000


@dataclass(frozen=True, kw_only=True)
class Graph:
    users: float
    items: float
    interactions: float

    @property
    def nodes(self) -> float:
        return self.users + self.items

    @property
    def id_bytes(self) -> int:
        return 4 if max(self.nodes, 2 * self.interactions) < 2**31 else 8

    @property
    def graph_bytes(self) -> float:
        return self.id_bytes * (2 * self.interactions + self.nodes)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a worker does in a step."""

    batch: int = 2048
    fan_outs: tuple[int, ...] = (10, 10)
    dim: int = 64
    wire_bytes: int = 4


@dataclass(frozen=True, kw_only=True)
class Cluster:
    name: str
    nodes: int
    workers_per_node: int
    memory_bytes: float
    link_bytes_per_second: float

    @property
    def workers(self) -> int:
        return self.nodes * self.workers_per_node


class Side:
    """Users or items on a grid of popularity ranks: how many each point stands for, and their share of the edges."""

    def __init__(self, count: float, exponent: float, interactions: float) -> None:
        ends = np.unique(np.concatenate([[0.0], np.geomspace(1, count, GRID)]))
        self.counts = np.diff(ends)
        shares = np.diff((ends / count) ** (1 - exponent))
        self.share = shares / self.counts
        self.degree = interactions * self.share
        self.reached: NDArray[np.float64] = np.zeros(len(self.counts))

    def reach(self, draws: float, *, uniformly: bool = False) -> None:
        """Add the nodes that so many edges (or, uniformly, so many draws among all nodes) lead to."""
        share = 1 / self.counts.sum() if uniformly else self.share
        self.reached = 1 - (1 - self.reached) * np.exp(-draws * share)

    def drawn(self, fan_out: int) -> float:
        """Edges drawn from the nodes reached."""
        return float((self.counts * self.reached * np.minimum(self.degree, fan_out)).sum())

    @property
    def size(self) -> float:
        return float((self.counts * self.reached).sum())


def rows_and_edges(graph: Graph, step: Step) -> tuple[float, float]:
    """Input rows and drawn edges of a batch with one uniform negative an interaction."""
    users = Side(graph.users, USER_EXPONENT, graph.interactions)
    items = Side(graph.items, ITEM_EXPONENT, graph.interactions)
    users.reach(step.batch)
    items.reach(step.batch)
    items.reach(step.batch, uniformly=True)
    edges = 0.0
    for fan_out in step.fan_outs:
        from_users, from_items = users.drawn(fan_out), items.drawn(fan_out)
        users.reach(from_items)
        items.reach(from_users)
        edges += from_users + from_items
    return users.size + items.size, edges


def node_bytes(graph: Graph, step: Step, cluster: Cluster) -> dict[str, float]:
    """Memory of one machine, with row-wise Adagrad."""
    rows, _ = rows_and_edges(graph, step)
    share = 1 / cluster.nodes
    parts = {
        "graph": graph.graph_bytes + 4 * graph.nodes,
        "tables": 4 * graph.nodes * (step.dim + 1) * share,
        "interactions": 12 * graph.interactions * share,
        "buffers": 4 * step.dim * rows * BUFFERS_PER_ROW * cluster.workers_per_node,
        "processes": PROCESS_BYTES * cluster.workers_per_node,
    }
    return {**parts, "all": sum(parts.values())}


def processor_nanoseconds(rows: float, edges: float, dim: int, *, workers: int, machines: int) -> float:
    """Of one worker's step."""
    per_row = (
        NANOSECONDS_PER_ROW + NANOSECONDS_PER_SHARED_ROW * (workers > 1) + NANOSECONDS_PER_SENT_ROW * (machines > 1)
    )
    return edges * NANOSECONDS_PER_EDGE + rows * per_row * dim / 64


def step_seconds(graph: Graph, step: Step, cluster: Cluster) -> dict[str, float]:
    """Seconds of a step on one core a worker: computing, and on the machine's link, which its workers share."""
    rows, edges = rows_and_edges(graph, step)
    computing = processor_nanoseconds(rows, edges, step.dim, workers=cluster.workers, machines=cluster.nodes)
    away = (cluster.nodes - 1) / cluster.nodes
    traffic = away * rows * (8 + 2 * step.dim * step.wire_bytes) * cluster.workers_per_node
    link = traffic / cluster.link_bytes_per_second
    return {"computing": computing * 1e-9, "link": link, "all": computing * 1e-9 + link}


GRAPHS = {
    "10⁷ nodes, 10⁸ interactions": Graph(users=6e6, items=4e6, interactions=1e8),
    "10⁸ nodes, 10⁹ interactions": Graph(users=6e7, items=4e7, interactions=1e9),
    "10⁹ nodes, 10¹⁰ interactions": Graph(users=6e8, items=4e8, interactions=1e10),
}
CLUSTERS = [
    Cluster(
        name=name, nodes=4, workers_per_node=workers, memory_bytes=gib * 2**30, link_bytes_per_second=gigabits * 1e9 / 8
    )
    for name, workers, gib, gigabits in (
        ("AWS m7i.24xlarge", 40, 384, 37.5),
        ("AWS r7i.48xlarge", 80, 1536, 50),
        ("GCP c3-highmem-176", 80, 1408, 100),
    )
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="the graphs that were measured")
    if parser.parse_args().check:
        check()
        return
    print("| Graph | 4 machines | GB a machine (has) | ms computing | ms on the link | Million interactions/s |")
    print("|---|---|---|---|---|---|")
    for name, graph in GRAPHS.items():
        for cluster in CLUSTERS:
            for step in (Step(), Step(fan_outs=(5, 5), wire_bytes=2)):
                memory, seconds = node_bytes(graph, step, cluster), step_seconds(graph, step, cluster)
                rate = step.batch * cluster.workers / seconds["all"] / 1e6
                print(
                    f"| {name}, {list(step.fan_outs)}{', bf16' if step.wire_bytes == 2 else ''} | {cluster.name} "
                    f"| {memory['all'] / 1e9:.0f} ({cluster.memory_bytes / 1e9:.0f}) "
                    f"| {1000 * seconds['computing']:.0f} | {1000 * seconds['link']:.0f} | {rate:.2f} |"
                )


def check() -> None:
    """Rows, edges and processor time of a batch on the generated graphs."""
    for graph in (Graph(users=6e5, items=4e5, interactions=1e7), GRAPHS["10⁷ nodes, 10⁸ interactions"]):
        for fan_outs in ((10, 10), (10, 5), (5, 5)):
            step = Step(fan_outs=fan_outs)
            rows, edges = rows_and_edges(graph, step)
            alone, among = (
                processor_nanoseconds(rows, edges, step.dim, workers=workers, machines=1) / 1e6 for workers in (1, 2)
            )
            print(
                f"{graph.nodes:,.0f} nodes, {list(fan_outs)}: {rows:,.0f} rows, {edges:,.0f} edges, {alone:.0f} ms of "
                f"one core, {among:.0f} with several workers, graph {graph.graph_bytes / 2**20:,.0f} MiB"
            )


if __name__ == "__main__":
    main()
