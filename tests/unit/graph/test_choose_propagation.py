"""Full or sampled: the decision and the reason that it gives."""

import numpy as np
import pytest

from braidrec.graph.choose import choose_propagation
from braidrec.graph.relation import INTERACTIONS, Relation

GIB = 2**30


def relation_of_size(num_nodes: int, num_edges: int) -> Relation:
    """A relation of that size without its memory: only its size matters here."""
    zero = np.zeros(1, dtype=np.int32)
    return Relation(
        INTERACTIONS, np.broadcast_to(zero, num_nodes + 1), np.broadcast_to(zero, num_edges), symmetric=True
    )


GOWALLA = relation_of_size(70_839, 1_620_256)
TEN_MILLION = relation_of_size(10_000_000, 200_000_000)


def choose(relation: Relation, hops: int = 3, fan_out: int = 10, **changes):
    arguments = {"seeds_per_step": 6144, "dim": 64, "memory_bytes": 64 * GIB, **changes}
    return choose_propagation([relation] * hops, fan_outs=[fan_out] * hops, **arguments)


@pytest.mark.parametrize("hops", [1, 2, 3, 4])
def test_a_small_graph_is_computed_in_full(hops: int) -> None:
    choice = choose(GOWALLA, hops)
    assert choice.mode == "full"
    assert f"{hops * 1_620_256:,} edges" in choice.reason


def test_ten_million_nodes_are_sampled() -> None:
    choice = choose(TEN_MILLION)
    assert choice.mode == "sampled"
    assert "600,000,000 edges" in choice.reason


def test_the_estimate_of_sampled_edges_follows_the_hops_outwards() -> None:
    # Mean degree 20. 100 seeds draw 1,000 edges; those 1,100 nodes draw 5 each: 5,500. With all: 2,000 + 2,100 × 20.
    relation = relation_of_size(1_000_000, 20_000_000)
    arguments = {"seeds_per_step": 100, "dim": 64, "memory_bytes": 64 * GIB}
    assert " 6,500 sampled" in choose_propagation([relation] * 2, fan_outs=[10, 5], **arguments).reason
    assert " 44,000 sampled" in choose_propagation([relation] * 2, fan_outs=[-1, -1], **arguments).reason
    # No hop draws more edges than there are, nor from more nodes.
    small = relation_of_size(1_000, 20_000)
    assert " 21,000 sampled" in choose_propagation([small] * 3, fan_outs=[10] * 3, **arguments).reason


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
