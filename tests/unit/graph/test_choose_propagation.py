"""Full or sampled: the decision and the reason that it gives."""

import numpy as np
import pytest
import torch

from braidrec.graph.build import build_interactions
from braidrec.graph.choose import choose_propagation
from braidrec.graph.neighbourhood import SampledSubgraph, hop_specs
from braidrec.graph.relation import INTERACTIONS, Relation

GIB = 2**30


def relation_of_size(num_nodes: int, num_edges: int) -> Relation:
    """A relation of that size in which all degrees are as equal as can be, without the memory for its edges."""
    indptr = np.arange(num_nodes + 1, dtype=np.int64) * num_edges // num_nodes
    edges = np.broadcast_to(np.zeros(1, dtype=np.int64), num_edges)
    return Relation(INTERACTIONS, indptr, edges, symmetric=True)


def sampled_edges(reason: str) -> int:
    return int(reason.split(" against about ")[1].split(" sampled")[0].replace(",", ""))


GOWALLA = relation_of_size(70_839, 1_620_256)
TEN_MILLION = relation_of_size(10_000_000, 200_000_000)


def choose(relation: Relation, hops: int = 3, fan_out: int = 10, **changes):
    arguments = {"seeds_per_step": 6144, "dim": 64, "memory_bytes": 64 * GIB, **changes}
    return choose_propagation([relation] * hops, fan_outs=[fan_out] * hops, **arguments)


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_a_small_graph_is_computed_in_full(hops: int) -> None:
    choice = choose(GOWALLA, hops)
    assert choice.mode == "full"
    # All edges in every hop but the last, where 6,144 draws of seeds, 5,886 of them distinct, have 22.9 each.
    whole, _, rest = choice.reason.partition(" edges a step in full")
    assert rest
    assert int(whole.replace(",", "")) == pytest.approx((hops - 1) * 1_620_256 + 5_886 * 22.87, rel=0.01)


def test_ten_million_nodes_are_sampled() -> None:
    choice = choose(TEN_MILLION)
    assert choice.mode == "sampled"
    assert choice.reason.startswith("400,12")  # two hops of 200,000,000 edges, and 6,144 seeds with 20 each


def test_the_estimate_of_sampled_edges_follows_the_hops_outwards() -> None:
    # Degree 20. 100 seeds draw 1,000 edges; those 1,100 nodes draw 5 each: 5,500. With all: 2,000 + 2,100 × 20.
    relation = relation_of_size(1_000_000, 20_000_000)
    arguments = {"seeds_per_step": 100, "dim": 64, "memory_bytes": 64 * GIB}
    some = choose_propagation([relation] * 2, fan_outs=[10, 5], **arguments)
    assert sampled_edges(some.reason) == pytest.approx(6_500, rel=0.01)
    everything = choose_propagation([relation] * 2, fan_outs=[-1, -1], **arguments)
    assert sampled_edges(everything.reason) == pytest.approx(44_000, rel=0.01)
    # Of 1,000 nodes no more than 1,000 can draw: the third hop has at most 10,000 edges.
    small = choose_propagation([relation_of_size(1_000, 20_000)] * 3, fan_outs=[10] * 3, **arguments)
    assert 15_000 < sampled_edges(small.reason) < 21_000


def test_hubs_are_drawn_more_often_and_never_give_more_than_the_fan_out() -> None:
    """The estimate against a real draw on a power-law graph, within a fifth."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 3_000, 60_000), (rng.random(60_000) ** 3 * 2_000).astype(np.int64)
    relation = build_interactions(users, items, 3_000, 2_000)
    edges = rng.integers(0, len(users), 500)
    seeds = np.unique(np.concatenate([users[edges], items[edges] + 3_000, rng.integers(3_000, 5_000, 500)]))
    source = SampledSubgraph({INTERACTIONS: relation}, device=torch.device("cpu"), kernel="dgl")
    drawn = source.neighbourhood(hop_specs([INTERACTIONS] * 2, [10, 5]), torch.from_numpy(seeds), step_seed=1)
    choice = choose_propagation([relation] * 2, fan_outs=[10, 5], seeds_per_step=1_500, dim=64, memory_bytes=64 * GIB)
    assert sampled_edges(choice.reason) == pytest.approx(sum(hop.structure.num_edges for hop in drawn.hops), rel=0.2)


def test_taking_every_neighbour_never_beats_the_full_graph_on_a_small_one() -> None:
    assert choose(GOWALLA, fan_out=-1).mode == "full"


def test_a_few_seeds_of_one_hop_are_sampled() -> None:
    assert choose(GOWALLA, hops=1, seeds_per_step=64).mode == "sampled"


def test_what_does_not_fit_the_memory_is_sampled() -> None:
    # 3 hops keep 12 tensors of 70,839 × 64 fp32: 218 MB.
    assert choose(GOWALLA, memory_bytes=217_000_000).mode == "sampled"
    assert choose(GOWALLA, memory_bytes=218_000_000).mode == "full"
    reason = choose(GOWALLA, memory_bytes=100_000_000).reason
    assert "0.2 GB of activations" in reason and "0.1 GB" in reason
    assert choose(GOWALLA, memory_bytes=218_000_000, dim=65).mode == "sampled"


@pytest.mark.parametrize("wanted", ["full", "sampled"])
@pytest.mark.parametrize("relation", [GOWALLA, TEN_MILLION])
def test_the_user_decides(wanted: str, relation: Relation) -> None:
    choice = choose(relation, wanted=wanted, memory_bytes=1)
    assert (choice.mode, choice.reason) == (wanted, "set by propagation.mode")


def test_an_encoder_without_hops() -> None:
    choice = choose_propagation([], fan_outs=[], seeds_per_step=6144, dim=64, memory_bytes=GIB)
    assert (choice.mode, choice.reason) == ("full", "the encoder has no hops")


def test_more_work_in_full_never_turns_to_full() -> None:
    modes = [choose(relation_of_size(nodes, 20 * nodes)).mode for nodes in (10**4, 10**5, 10**6, 10**7)]
    assert modes == sorted(modes)  # "full" sorts before "sampled"
    assert set(modes) == {"full", "sampled"}


def test_an_empty_graph() -> None:
    assert choose(relation_of_size(5, 0)).mode in {"full", "sampled"}
