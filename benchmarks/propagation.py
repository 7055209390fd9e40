"""What one step of propagation costs, whole and sampled: the figures behind graph/choose.py.

    python benchmarks/propagation.py --data DATA/gowalla      # a raw or prepared data set
    python benchmarks/propagation.py --users 1000000 --items 200000 --interactions 10000000

A step is what training does between the rows of the input nodes and those of the batch: the neighbourhood (restricted
or drawn), the hops of LightGCN, the mean readout, and all of it backwards. Reading and updating the embedding table
is not part of it. Every variant runs once a round, the variants taking turns, so that a busy machine slows all of them;
medians over the rounds count, and the first round is not counted. Figures from a machine that does other work are not
worth keeping: the load average is printed with them and should not be above the number of threads.

Prints JSON:
* `full`: milliseconds for every kernel and number format on the graph and on thinned copies of it (the same nodes, a
  share of the interactions), and the two figures that explain them best as `edge · Σ edges + node · hops · nodes`;
* `sampled`: milliseconds for every sampler, kernel, number format and fan-out, edges drawn, input nodes, the part spent
  drawing, nanoseconds for an edge drawn, and what choose.py estimated for the number of edges;
* `constants`: those of choose.py beside those measured here (DGL's kernel, fp32, scaled to d = 64);
* `decisions`: what choose.py would do for each fan-out, and what would have been right here.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import scipy.optimize
import torch
from common import prepared, print_json, work_folder
from torch import Tensor

from braidrec.graph import choose
from braidrec.graph.build import build_interactions
from braidrec.graph.kernels import choose_kernel
from braidrec.graph.neighbourhood import FullGraph, Neighbourhood, SampledSubgraph, hop_specs
from braidrec.graph.propagate import combine_levels, propagate
from braidrec.graph.relation import INTERACTIONS, Relation
from braidrec.graph.sampling import SAMPLERS
from braidrec.training.environment import restart_with_training_environment, use_threads

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHARES = (1.0, 0.5, 0.25, 0.125)
AMPLE_MEMORY = 2**60


@dataclass(kw_only=True)
class Case:
    """One variant of the step, and what its runs gave."""

    step: Callable[[], dict[str, float]]
    seconds: list[float] = field(default_factory=list)
    counts: list[dict[str, float]] = field(default_factory=list)

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.seconds)

    def count(self, name: str) -> float:
        return statistics.mean(counts[name] for counts in self.counts)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all cases share."""

    relation: Relation
    num_users: int
    dim: int
    layers: int
    batch: int
    device: torch.device

    @property
    def chain(self) -> list[str]:
        return [INTERACTIONS] * self.layers

    def seeds(self, rng: np.random.Generator) -> Tensor:
        """Distinct nodes of a BPR batch: interactions drawn uniformly, and as many items for negatives."""
        edges = rng.integers(0, self.relation.num_edges // 2, self.batch)
        # The first half of the edges are those whose destination is a user.
        users = np.searchsorted(self.relation.indptr[: self.num_users + 1], edges, "right") - 1
        negatives = rng.integers(self.num_users, self.relation.num_nodes, self.batch)
        nodes = np.unique(np.concatenate([users, self.relation.indices[edges], negatives]))
        return torch.from_numpy(nodes.astype(np.int64)).to(self.device)


def main() -> None:
    options = parse_arguments()
    restart_with_training_environment(options.threads)
    use_threads(options.threads)
    relation, num_users = dataset(options) if options.data else generated(options)
    setting = Setting(
        relation=relation,
        num_users=num_users,
        dim=options.dim,
        layers=options.layers,
        batch=options.batch,
        device=torch.device(options.device),
    )
    kernels = [choose_kernel(setting.device)]
    if "torch" not in kernels:
        kernels.append("torch")
    full, sampled = full_cases(setting, kernels), sampled_cases(setting, kernels, options.fan_outs)
    run([*full.values(), *sampled.values()], options.rounds, setting.device)
    print_json(report(setting, kernels[0], options, full, sampled))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="raw or prepared folder; else a graph is generated")
    parser.add_argument("--work", help="folder for prepared data")
    parser.add_argument("--users", type=int, default=30_000)
    parser.add_argument("--items", type=int, default=40_000)
    parser.add_argument("--interactions", type=int, default=800_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--batch", type=int, default=2048, help="interactions a step")
    parser.add_argument("--fan-outs", type=int, nargs="+", default=[5, 10, 25], help="each used for all hops")
    parser.add_argument("--rounds", type=int, default=15, help="measured runs of every variant")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def dataset(options: argparse.Namespace) -> tuple[Relation, int]:
    """The train graph of a data set, and its number of users."""
    folder = prepared(options.data, work_folder(options.work))
    return build_interactions(*folder.edges("train"), folder.num_users, folder.num_items), folder.num_users


def generated(options: argparse.Namespace) -> tuple[Relation, int]:
    """A graph whose users' activity is log-normal and whose items' popularity falls as rank^{-0.7}, in random order."""
    rng = np.random.default_rng(options.seed)
    activity = rng.lognormal(sigma=1.0, size=options.users)
    popularity = rng.permutation(np.arange(1, options.items + 1) ** -0.7)
    users = draw_in_proportion(activity, options.interactions, rng)
    items = draw_in_proportion(popularity, options.interactions, rng)
    return build_interactions(users, items, options.users, options.items), options.users


def draw_in_proportion(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` places, each with probability in proportion to its weight."""
    cumulative = np.cumsum(weights)
    return np.searchsorted(cumulative, rng.random(count) * cumulative[-1], "right").clip(max=len(weights) - 1)


def full_cases(setting: Setting, kernels: Sequence[str]) -> dict[tuple[str, str, float], Case]:
    """By kernel, number format and share of the interactions."""
    relations = {share: thinned(setting, share) for share in SHARES}
    return {
        (kernel, precision, share): Case(step=full_step(setting, relations[share], kernel, FORMATS[precision]))
        for kernel, precision, share in product(kernels, FORMATS, SHARES)
    }


def thinned(setting: Setting, share: float) -> Relation:
    """The relation with a random share of its interactions."""
    relation, num_users = setting.relation, setting.num_users
    if share == 1.0:
        return relation
    half = relation.num_edges // 2
    users = np.repeat(np.arange(num_users), np.diff(relation.indptr[: num_users + 1]))
    kept = np.random.default_rng(1).random(half) < share
    items = relation.indices[:half][kept] - num_users
    return build_interactions(users[kept], items, num_users, relation.num_nodes - num_users)


def full_step(setting: Setting, relation: Relation, kernel: str, dtype: torch.dtype) -> Callable[[], dict[str, float]]:
    source = FullGraph({INTERACTIONS: relation}, device=setting.device, kernel=kernel)
    table = torch.randn(relation.num_nodes, setting.dim, device=setting.device)
    rng, chain = np.random.default_rng(2), hop_specs(setting.chain, [-1])

    def step() -> dict[str, float]:
        forward_and_backward(source.neighbourhood(chain, setting.seeds(rng)), table, dtype)
        return {"edges": relation.num_edges * setting.layers}

    return step


def sampled_cases(
    setting: Setting, kernels: Sequence[str], fan_outs: Sequence[int]
) -> dict[tuple[str, str, str, int], Case]:
    """By sampler, kernel, number format and fan-out."""
    return {
        (sampler, kernel, precision, fan_out): Case(
            step=sampled_step(setting, sampler, kernel, FORMATS[precision], fan_out)
        )
        for sampler, kernel, precision, fan_out in product(SAMPLERS, kernels, FORMATS, fan_outs)
    }


def sampled_step(
    setting: Setting, sampler: str, kernel: str, dtype: torch.dtype, fan_out: int
) -> Callable[[], dict[str, float]]:
    relations = {INTERACTIONS: setting.relation}
    source = SampledSubgraph(relations, device=setting.device, kernel=kernel, sampler=sampler)
    rng, chain = np.random.default_rng(2), hop_specs(setting.chain, [fan_out])

    def step() -> dict[str, float]:
        start = time.perf_counter()
        neighbourhood = source.neighbourhood(chain, setting.seeds(rng), step_seed=int(rng.integers(2**31)))
        drawing = time.perf_counter() - start
        assert neighbourhood.input_nodes is not None
        inputs = torch.empty(len(neighbourhood.input_nodes), setting.dim, device=setting.device).normal_()
        forward_and_backward(neighbourhood, inputs, dtype)
        edges = sum(hop.structure.num_edges for hop in neighbourhood.hops)
        return {"edges": edges, "input_nodes": len(inputs), "drawing": drawing}

    return step


def forward_and_backward(neighbourhood: Neighbourhood, inputs: Tensor, dtype: torch.dtype) -> None:
    start = inputs.detach().requires_grad_()
    out = combine_levels(propagate(neighbourhood, start, dtype=dtype), "mean")
    out.backward(torch.ones_like(out))


def run(cases: Sequence[Case], rounds: int, device: torch.device) -> None:
    """Every case once a round; the first round warms up."""
    for number in range(rounds + 1):
        for case in cases:
            synchronise(device)
            start = time.perf_counter()
            counts = case.step()
            synchronise(device)
            if number:
                case.seconds.append(time.perf_counter() - start)
                case.counts.append(counts)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def report(
    setting: Setting,
    kernel: str,
    options: argparse.Namespace,
    full: dict[tuple[str, str, float], Case],
    sampled: dict[tuple[str, str, str, int], Case],
) -> dict[str, Any]:
    relation = setting.relation
    by_variant = {key[:2]: {share: full[(*key[:2], share)] for share in SHARES} for key in full}
    explained = {variant: explain(setting, cases) for variant, cases in by_variant.items()}
    return {
        "graph": {"nodes": relation.num_nodes, "directed_edges": relation.num_edges, "data": options.data},
        "step": {"dim": setting.dim, "layers": setting.layers, "batch": setting.batch, "threads": options.threads},
        "rounds": options.rounds,
        "device": str(setting.device),
        "load_average_of_the_last_minute": round(os.getloadavg()[0], 1),
        "full": {" ".join(variant): found for variant, found in explained.items()},
        "sampled": {
            f"{' '.join(key[:3])} fan-out {key[3]}": describe_sampled(setting, key[3], case)
            for key, case in sampled.items()
        },
        "constants": constants(setting, kernel, explained[kernel, "fp32"], sampled),
        "decisions": [
            decision(setting, fan_out, full[kernel, "fp32", 1.0], sampled["neighbour", kernel, "fp32", fan_out])
            for fan_out in options.fan_outs
        ],
    }


def explain(setting: Setting, cases: dict[float, Case]) -> dict[str, Any]:
    """Nanoseconds for an edge and for a node of a hop, fitted to relative errors, neither below zero."""
    nodes = setting.relation.num_nodes * setting.layers
    seconds = np.array([case.median_seconds for case in cases.values()])
    work = np.array([[case.count("edges"), nodes] for case in cases.values()])
    (edge, node), _ = scipy.optimize.nnls(work / seconds[:, None], np.ones(len(seconds)))
    return {
        "milliseconds": {f"{share:g} of the edges": summary(case) for share, case in cases.items()},
        "nanoseconds_per_edge": round(edge * 1e9, 2),
        "nanoseconds_per_node": round(node * 1e9, 2),
        "largest_relative_error": round(float(np.abs(work @ [edge, node] / seconds - 1).max()), 3),
    }


def describe_sampled(setting: Setting, fan_out: int, case: Case) -> dict[str, Any]:
    return {
        "milliseconds": summary(case),
        "of_these_drawing": round(1e3 * case.count("drawing"), 2),
        "edges": round(case.count("edges")),
        "edges_estimated": estimated_edges(setting, fan_out),
        "input_nodes": round(case.count("input_nodes")),
        "nanoseconds_per_edge": round(1e9 * case.median_seconds / case.count("edges"), 1),
    }


def summary(case: Case) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    quartiles = statistics.quantiles(case.seconds, n=4) if len(case.seconds) > 1 else [case.seconds[0]] * 3
    return dict(
        zip(("lower_quartile", "median", "upper_quartile"), (round(1e3 * q, 2) for q in quartiles), strict=True)
    )


def estimated_edges(setting: Setting, fan_out: int) -> int:
    """What choose.py takes for the number of edges drawn by a batch of users, items and negatives."""
    relations = [setting.relation] * setting.layers
    return choose._expected_edges(relations, [fan_out] * setting.layers, 3 * setting.batch)


def constants(
    setting: Setting, kernel: str, full: dict[str, Any], sampled: dict[tuple[str, str, str, int], Case]
) -> dict[str, dict[str, float]]:
    """Those of choose.py and those seen here. Its costs are in proportion to d, with d = 64 as the unit.

    choose.py multiplies its estimate of the edges, so `per_estimated_edge` is what would give the right time.
    """
    unit = 64 / setting.dim
    mine = {
        fan_out: case
        for (sampler, k, p, fan_out), case in sampled.items()
        if (sampler, k, p) == ("neighbour", kernel, "fp32")
    }
    drawn = [1e9 * case.median_seconds / case.count("edges") for case in mine.values()]
    estimated = [1e9 * case.median_seconds / estimated_edges(setting, fan_out) for fan_out, case in mine.items()]
    return {
        "_FULL_EDGE": {"in_choose.py": choose._FULL_EDGE, "here": round(full["nanoseconds_per_edge"] * unit, 1)},
        "_FULL_NODE": {"in_choose.py": choose._FULL_NODE, "here": round(full["nanoseconds_per_node"] * unit, 1)},
        "_SAMPLED_EDGE": {
            "in_choose.py": choose._SAMPLED_EDGE,
            "here": round(statistics.median(drawn) * unit, 1),
            "per_estimated_edge": round(statistics.median(estimated) * unit, 1),
        },
    }


def decision(setting: Setting, fan_out: int, full: Case, sampled: Case) -> dict[str, Any]:
    chosen = choose.choose_propagation(
        [setting.relation] * setting.layers,
        fan_outs=[fan_out] * setting.layers,
        seeds_per_step=3 * setting.batch,
        dim=setting.dim,
        memory_bytes=AMPLE_MEMORY,
    )
    return {
        "fan_out": fan_out,
        "chosen": chosen.mode,
        "reason": chosen.reason,
        "faster_here": "full" if full.median_seconds <= sampled.median_seconds else "sampled",
        "full_milliseconds": round(1e3 * full.median_seconds, 1),
        "sampled_milliseconds": round(1e3 * sampled.median_seconds, 1),
    }


if __name__ == "__main__":
    main()
