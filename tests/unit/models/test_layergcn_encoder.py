"""LayerGCN's propagation against dense matrices, node by node."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from dense_oracles import ITEMS, NUM_ITEMS, NUM_NODES, NUM_USERS, USERS, propagation_matrix

from braidrec.graph.build import build_interactions
from braidrec.graph.neighbourhood import FullGraph, Neighbourhood, SampledSubgraph, hop_specs
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.encoders.contract import PropagationView
from braidrec.models.encoders.layergcn import LayerGCNEncoder

DIM = 3
CPU = torch.device("cpu")
RELATIONS = {INTERACTIONS: build_interactions(USERS, ITEMS, NUM_USERS, NUM_ITEMS)}
SEEDS = torch.tensor([0, 3, 4, 6, 8, 11])
TOLERANCE = {"rtol": 0, "atol": 1e-6}


def embeddings() -> torch.Tensor:
    return torch.randn(NUM_NODES, DIM, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def neighbourhood_of(layers: int, seeds: torch.Tensor | None, mode: str = "full") -> Neighbourhood:
    source = FullGraph if mode == "full" else SampledSubgraph
    return source(RELATIONS, device=CPU, kernel="dgl").neighbourhood(hop_specs((INTERACTIONS,) * layers, (-1,)), seeds)


def dense(table: torch.Tensor, layers: int, *, refined: bool = True) -> torch.Tensor:
    graph, z, total = torch.from_numpy(propagation_matrix()), table, torch.zeros_like(table)
    for _ in range(layers):
        z = graph @ z
        if refined:
            z = torch.stack([F.cosine_similarity(row, own, dim=0) * row for row, own in zip(z, table, strict=True)])
        total = total + z
    return total


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("mode", ["all", "full", "sampled"])
def test_vectors_and_gradient(layers: int, mode: str) -> None:
    seeds = None if mode == "all" else SEEDS
    neighbourhood = neighbourhood_of(layers, seeds, "full" if mode == "all" else mode)
    rows = slice(None) if seeds is None else seeds
    table = embeddings().requires_grad_()
    inputs = table if neighbourhood.input_nodes is None else table[neighbourhood.input_nodes]
    vectors, ego = LayerGCNEncoder(layers=layers).encode(neighbourhood, inputs)
    wanted = dense(table, layers)[rows]
    np.testing.assert_allclose(vectors.detach(), wanted.detach(), **TOLERANCE)
    assert torch.equal(ego, table[rows])
    towards = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    (found,) = torch.autograd.grad((vectors * towards).sum(), table)
    (gradient,) = torch.autograd.grad((wanted * towards).sum(), table)
    np.testing.assert_allclose(found, gradient, **TOLERANCE)
    assert (wanted - dense(table, layers, refined=False)[rows]).abs().max() > 0.1, "without the cosine it is another"


def test_isolated_nodes_are_zero() -> None:
    table = embeddings().requires_grad_()
    vectors, _ = LayerGCNEncoder(layers=3).encode(neighbourhood_of(3, None), table)
    assert not vectors[[3, NUM_USERS + 6]].any()
    vectors.sum().backward()
    assert torch.isfinite(table.grad).all() and not table.grad[[3, NUM_USERS + 6]].any()


def test_a_view_changes_what_every_hop_gives() -> None:
    table = embeddings()
    halved = PropagationView(after_hop=lambda z: z / 2)
    vectors, _ = LayerGCNEncoder(layers=2).encode(neighbourhood_of(2, None), table, halved)
    first, both = dense(table, 1), dense(table, 2)
    np.testing.assert_allclose(vectors, first / 2 + (both - first) / 4, **TOLERANCE)


def test_half_precision_is_for_training_only() -> None:
    table, encoder = embeddings().float(), LayerGCNEncoder(layers=2, dtype=torch.bfloat16)
    exact = dense(table.double(), 2)
    trained, _ = encoder.train().encode(neighbourhood_of(2, None), table)
    evaluated, _ = encoder.eval().encode(neighbourhood_of(2, None), table)
    assert trained.dtype == torch.float32
    assert 1e-5 < (trained - exact).abs().max() < 3e-2
    np.testing.assert_allclose(evaluated, exact, **TOLERANCE)


def test_it_needs_a_layer() -> None:
    with pytest.raises(ValueError, match="layers=0 must be at least 1"):
        LayerGCNEncoder(layers=0)
