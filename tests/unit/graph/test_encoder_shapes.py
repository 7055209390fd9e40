"""The contract of hops carries the encoders that are to come, and none of them asks whether it is sampled.

Each is written as its paper says, over `Hop` and `Neighbourhood` alone, and run on the full graph and on sampled hops
that take every neighbour: the representations of the seeds and the gradients of inputs and weights must be equal.
"""

from collections.abc import Callable

import pytest
import torch
from graph_oracles import (
    CPU,
    adjacency,
    assert_near,
    both_directions,
    normalised,
    random_edges,
    random_pairs,
    relation_of,
    rows,
)
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, normalize

from braidrec.graph.dgl_import import dgl
from braidrec.graph.hop import Hop, Neighbourhood
from braidrec.graph.neighbourhood import FullGraph, NeighbourhoodSource, SampledSubgraph, hop_specs
from braidrec.graph.relation import INTERACTIONS

U, N, DIM = 20, 36, 8
EDGES = {
    INTERACTIONS: both_directions(random_pairs(31, U, N - U, 120), U),
    "content": random_edges(32, range(U, N), 60),
    "social": random_edges(33, range(U), 60),
}
RELATIONS = {name: relation_of(name, edges, N, symmetric=name == INTERACTIONS) for name, edges in EDGES.items()}
SEEDS = torch.tensor([30, 4, U - 1, 0, 22, N - 1, 11])
Encoder = Callable[[Neighbourhood, Tensor], Tensor]


def nodes_of(hop: Hop) -> Tensor:
    """Global ids of the destination rows."""
    return torch.arange(hop.num_dst) if hop.dst_nodes is None else hop.dst_nodes


class NGCF(nn.Module):
    """`LeakyReLU(W₁ (h_v + Σ p_uv h_u) + W₂ Σ p_uv (h_u ⊙ h_v))`, levels concatenated (Wang et al., SIGIR 2019)."""

    chain = (INTERACTIONS,) * 3

    def __init__(self) -> None:
        super().__init__()
        self.same = nn.ModuleList(nn.Linear(DIM, DIM) for _ in self.chain)
        self.product = nn.ModuleList(nn.Linear(DIM, DIM) for _ in self.chain)

    def forward(self, neighbourhood: Neighbourhood, h: Tensor) -> Tensor:
        levels = [neighbourhood.at_seeds(h, 0)]
        for level, hop in enumerate(neighbourhood.hops, start=1):
            total, own = hop.aggregate(h), hop.own(h)
            h = leaky_relu(self.same[level - 1](own + total) + self.product[level - 1](total * own), 0.2)
            levels.append(neighbourhood.at_seeds(normalize(h), level))
        return torch.cat(levels, dim=1)


class SimGCL(nn.Module):
    """LightGCN with noise of length ε, in the orthant of h, after every hop (Yu et al., SIGIR 2022).

    The noise is a function of node and level, so that it does not depend on which rows are there.
    """

    chain = (INTERACTIONS,) * 2

    def forward(self, neighbourhood: Neighbourhood, h: Tensor) -> Tensor:
        levels = []
        for level, hop in enumerate(neighbourhood.hops, start=1):
            h = hop.aggregate(h)
            noise = rows(100 + level, N, DIM)[nodes_of(hop)].abs()
            h = h + 0.1 * torch.sign(h) * normalize(noise)
            levels.append(neighbourhood.at_seeds(h, level))
        return torch.stack(levels).mean(0)


class GraphSAGE(nn.Module):
    """`ReLU(W [h_v ‖ mean h_u])` (Hamilton et al., NeurIPS 2017)."""

    chain = (INTERACTIONS,) * 2

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ModuleList(nn.Linear(2 * DIM, DIM) for _ in self.chain)

    def forward(self, neighbourhood: Neighbourhood, h: Tensor) -> Tensor:
        for weight, hop in zip(self.weights, neighbourhood.hops, strict=True):
            h = torch.relu(weight(torch.cat([hop.own(h), hop.aggregate(h, normalise="mean")], dim=1)))
        return h


class DGLLayers(nn.Module):
    """DGL's own layers on `hop.block`: attention, then GraphSAGE."""

    chain = (INTERACTIONS, "content", INTERACTIONS)

    def __init__(self) -> None:
        super().__init__()
        attention = {"num_heads": 2, "allow_zero_in_degree": True}
        self.layers = nn.ModuleList(
            [
                dgl.nn.GATConv(DIM, DIM // 2, **attention),
                dgl.nn.SAGEConv(DIM, DIM, "mean"),
                dgl.nn.GATConv(DIM, DIM // 2, **attention),
            ]
        )

    def forward(self, neighbourhood: Neighbourhood, h: Tensor) -> Tensor:
        for layer, hop in zip(self.layers, neighbourhood.hops, strict=True):
            h = layer(hop.block, (h, hop.own(h))).flatten(1)
        return h


class EdgeAttention(nn.Module):
    """GRCN-like routing from `edges()` and `edge_weight`: tanh(q · (h_u ⊙ h_v)) times a learned factor an edge."""

    chain = (INTERACTIONS,) * 2

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(rows(41, 1, DIM)[0])
        self.edge = nn.Parameter(rows(42, RELATIONS[INTERACTIONS].num_edges, 1).flatten())

    def forward(self, neighbourhood: Neighbourhood, h: Tensor) -> Tensor:
        for hop in neighbourhood.hops:
            sources, destinations, ids = hop.edges()
            score = (h[sources] * hop.own(h)[destinations]) @ self.query
            h = hop.own(h) + hop.aggregate(h, torch.tanh(score) * self.edge[ids])
        return h


class MGCN(nn.Module):
    """A mixed chain: items over the content graph, then all over interactions, then users over the social graph."""

    chain = ("content", INTERACTIONS, INTERACTIONS, "social")

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(DIM, DIM)

    def forward(self, neighbourhood: Neighbourhood, h: Tensor) -> Tensor:
        content, first, second, social = neighbourhood.hops
        h = content.own(h) + torch.sigmoid(self.gate(content.own(h))) * content.aggregate(h)
        one = first.aggregate(h)
        two = second.aggregate(one)
        levels = neighbourhood.at_seeds(h, 1) + neighbourhood.at_seeds(one, 2)
        return levels + social.own(two) + social.aggregate(two, normalise="mean")


ENCODERS = [NGCF, SimGCL, GraphSAGE, DGLLayers, EdgeAttention, MGCN]


def value_and_gradients(source: NeighbourhoodSource, encoder: nn.Module) -> tuple[Tensor, list[Tensor]]:
    h = rows(40, N, DIM).requires_grad_()
    encoder.zero_grad()
    neighbourhood = source.neighbourhood(hop_specs(encoder.chain, [-1]), SEEDS)
    out = encoder(neighbourhood, h if neighbourhood.input_nodes is None else h[neighbourhood.input_nodes])
    (out * rows(43, *out.shape)).sum().backward()
    return out.detach(), [h.grad, *(parameter.grad.clone() for parameter in encoder.parameters())]


@pytest.mark.parametrize("kernel", ["dgl", "torch"])
@pytest.mark.parametrize("sampler", ["neighbour", "labor"])
@pytest.mark.parametrize("encoder_type", ENCODERS)
def test_full_and_sampled_with_all_neighbours_agree(encoder_type: type, sampler: str, kernel: str) -> None:
    torch.manual_seed(0)
    encoder = encoder_type()
    full = FullGraph(RELATIONS, device=CPU, kernel=kernel)
    sampled = SampledSubgraph(RELATIONS, device=CPU, kernel=kernel, sampler=sampler)
    out, gradients = value_and_gradients(full, encoder)
    sampled_out, sampled_gradients = value_and_gradients(sampled, encoder)
    assert out.shape[0] == len(SEEDS) and out.abs().sum() > 0
    torch.testing.assert_close(sampled_out, out, rtol=1e-5, atol=1e-5)
    for mine, wanted in zip(sampled_gradients, gradients, strict=True):
        assert wanted.abs().sum() > 0
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=2e-5)


def test_ngcf_is_the_dense_formula() -> None:
    torch.manual_seed(0)
    encoder = NGCF()
    out, _ = value_and_gradients(FullGraph(RELATIONS, device=CPU, kernel="dgl"), encoder)
    matrix = torch.from_numpy(normalised(adjacency(EDGES[INTERACTIONS], N)))
    h = rows(40, N, DIM).double()
    levels = [h]
    for same, product in zip(encoder.double().same, encoder.product, strict=True):
        own_and_neighbours = (h + matrix @ h) @ same.weight.T + same.bias
        # Σ_u p_uv (h_u ⊙ h_v), edge by edge.
        products = torch.stack([(matrix[v].unsqueeze(1) * h * h[v]).sum(0) for v in range(N)])
        h = leaky_relu(own_and_neighbours + products @ product.weight.T + product.bias, 0.2)
        levels.append(normalize(h))
    assert_near(out, torch.cat(levels, dim=1)[SEEDS].detach().numpy(), 1e-5)
