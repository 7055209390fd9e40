"""Encoders against dense matrices and plain loops on twelve nodes: values, gradients, views, sampled as whole."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from dense_oracles import ITEMS, NUM_ITEMS, NUM_NODES, NUM_USERS, USERS, propagation_matrix
from torch import Tensor

from braidrec.graph.build import build_interactions
from braidrec.graph.hop import Hop
from braidrec.graph.neighbourhood import FullGraph, Neighbourhood, SampledSubgraph, hop_specs
from braidrec.graph.relation import INTERACTIONS
from braidrec.graph.views import weight_noise
from braidrec.models.encoders.contract import PLAIN, Encoder, PropagationView
from braidrec.models.encoders.dgl_layers import DGLEncoder
from braidrec.models.encoders.identity import IdentityEncoder
from braidrec.models.encoders.lightgcn import LightGCNEncoder
from braidrec.models.encoders.ngcf import NGCFEncoder
from braidrec.models.views.simgcl_noise import SimGCLNoise

DIM = 3
CPU = torch.device("cpu")
PLAIN_RELATION = build_interactions(USERS, ITEMS, NUM_USERS, NUM_ITEMS)
WEIGHTED = weight_noise(PLAIN_RELATION, 0.3, seed=2)
WEIGHTED.name = "weighted"
RELATIONS = {INTERACTIONS: PLAIN_RELATION, "weighted": WEIGHTED}
SEEDS = torch.tensor([0, 3, 4, 6, 8, 11])
MODES = ("all", "full", "sampled")
# The degrees' roots are kept in fp32.
TOLERANCE = {"rtol": 0, "atol": 2e-6}
Dense = Callable[[torch.nn.Module, Tensor, Tensor | None], list[Tensor]]


def embeddings() -> Tensor:
    return torch.randn(NUM_NODES, DIM, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def neighbourhood_of(layers: int, mode: str, relation: str = INTERACTIONS) -> Neighbourhood:
    """ "all" nodes or some seeds of the whole graph, or some seeds of a sample that takes every neighbour."""
    source = (SampledSubgraph if mode == "sampled" else FullGraph)(RELATIONS, device=CPU, kernel="dgl")
    return source.neighbourhood(hop_specs((relation,) * layers, (-1,)), None if mode == "all" else SEEDS)


def adjacency() -> np.ndarray:
    return (propagation_matrix() > 0).astype(float)


def factor_of(source: int, destination: int) -> float:
    """A weight of an edge that depends on its ends, and not alike on both."""
    return 0.25 + ((3 * source + 5 * destination) % 7) / 5


def dense_factors() -> Tensor:
    """`[destination, source]`."""
    return torch.tensor([[factor_of(source, to) for source in range(NUM_NODES)] for to in range(NUM_NODES)]).double()


def edge_factors(hop: Hop, h: Tensor) -> Tensor:
    sources, destinations, _ = hop.edges()
    everyone = torch.arange(NUM_NODES)
    from_ = (everyone if hop.src_nodes is None else hop.src_nodes)[sources].tolist()
    to = (everyone if hop.dst_nodes is None else hop.dst_nodes)[destinations].tolist()
    return h.new_tensor([factor_of(*edge) for edge in zip(from_, to, strict=True)])


def lightgcn_levels(encoder: torch.nn.Module, h: Tensor, weight: Tensor | None) -> list[Tensor]:
    graph = torch.from_numpy(propagation_matrix()) * (1.0 if weight is None else weight)
    levels = [h]
    for _ in range(encoder.layers):
        levels.append(graph @ levels[-1])
    return levels


def ngcf_levels(encoder: NGCFEncoder, h: Tensor, weight: Tensor | None) -> list[Tensor]:
    graph = torch.from_numpy(propagation_matrix()) * (1.0 if weight is None else weight)
    levels, z = [h], h
    for layer in range(encoder.layers):
        first = encoder.neighbours[layer]
        total = (graph @ z + z) @ first.weight.T + first.bias
        if encoder.products is not None:
            second = encoder.products[layer]
            total = total + (graph @ z * z) @ second.weight.T + second.bias
        z = torch.where(total > 0, total, 0.2 * total)
        levels.append(torch.stack([row / row.norm() if row.any() else row for row in z]))
    return levels


def graphsage_levels(encoder: DGLEncoder, h: Tensor, weight: Tensor | None) -> list[Tensor]:
    """`W_s h_v + b + W_n mean_u w_uv h_u`, node by node."""
    linked, levels = adjacency(), [h]
    for layer, convolution in enumerate(encoder.convolutions, start=1):
        own, others = convolution.fc_self, convolution.fc_neigh
        rows = []
        for node in range(NUM_NODES):
            mine = [other for other in range(NUM_NODES) if linked[node, other]]
            messages = [levels[-1][other] * (1.0 if weight is None else weight[node, other]) for other in mine]
            mean = sum(messages) / len(mine) if mine else torch.zeros(DIM).double()
            row = own.weight @ levels[-1][node] + others.weight @ mean
            row = row + own.bias if own.bias is not None else row + convolution.bias
            rows.append(row if layer == encoder.layers else F.leaky_relu(row, 0.2))
        levels.append(torch.stack(rows))
    return levels


def gat_levels(encoder: DGLEncoder, h: Tensor, weight: Tensor | None) -> list[Tensor]:
    """Node by node and head by head: `α_uv = softmax_u LeakyReLU(a_l W h_u + a_r W h_v)`, a residual and a bias."""
    linked, levels = adjacency(), [h]
    for layer, convolution in enumerate(encoder.convolutions, start=1):
        heads = convolution.attn_l.shape[1]
        maps = convolution.fc.weight.reshape(heads, DIM, DIM)
        several = heads > 1  # DGL then has a linear residual, which holds the bias
        residuals = convolution.res_fc.weight.reshape(heads, DIM, DIM) if several else torch.eye(DIM).double()[None]
        bias = (convolution.res_fc if several else convolution).bias.reshape(heads, DIM)
        rows = []
        for node in range(NUM_NODES):
            mine = [other for other in range(NUM_NODES) if linked[node, other]]
            by_head = []
            for head in range(heads):
                left, right = convolution.attn_l[0, head], convolution.attn_r[0, head]
                row = residuals[head] @ levels[-1][node] + bias[head]
                sent = [maps[head] @ levels[-1][other] for other in mine]
                asked = right @ (maps[head] @ levels[-1][node])
                logits = [F.leaky_relu(left @ message + asked, 0.2).exp() for message in sent]
                for other, message, logit in zip(mine, sent, logits, strict=True):
                    factor = 1.0 if weight is None else weight[node, other]
                    row = row + factor * logit / sum(logits) * message
                by_head.append(row)
            row = sum(by_head) / heads
            rows.append(row if layer == encoder.layers else F.leaky_relu(row, 0.2))
        levels.append(torch.stack(rows))
    return levels


def read_out(levels: list[Tensor], readout: str) -> Tensor:
    if readout == "concat":
        return torch.cat(levels, dim=1)
    total = sum(levels)
    return {"last": levels[-1], "sum": total, "mean": total / len(levels)}[readout]


def gat(heads: int, **settings: object) -> DGLEncoder:
    return DGLEncoder(kind="gat", dim=DIM, layers=2, heads=heads, **settings)


CASES: dict[str, tuple[Callable[[], Encoder], Dense]] = {
    "identity": (IdentityEncoder, lightgcn_levels),
    "lightgcn, mean": (lambda: LightGCNEncoder(layers=3), lightgcn_levels),
    "lightgcn, concat": (lambda: LightGCNEncoder(layers=2, readout="concat"), lightgcn_levels),
    "lightgcn, last": (lambda: LightGCNEncoder(layers=2, readout="last"), lightgcn_levels),
    "ngcf": (lambda: NGCFEncoder(dim=DIM, layers=2), ngcf_levels),
    "ngcf, no interaction": (lambda: NGCFEncoder(dim=DIM, layers=2, readout="sum", interaction=False), ngcf_levels),
    "graphsage": (lambda: DGLEncoder(kind="graphsage", dim=DIM, layers=2), graphsage_levels),
    "graphsage, mean": (lambda: DGLEncoder(kind="graphsage", dim=DIM, layers=2, readout="mean"), graphsage_levels),
    "gat": (lambda: gat(1), gat_levels),
    "gat, two heads, concat": (lambda: gat(2, readout="concat"), gat_levels),
}


def make(name: str) -> tuple[torch.nn.Module, Dense]:
    """In fp64, with every parameter random."""
    build, dense = CASES[name]
    encoder = build().double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.6)
    return encoder, dense


@pytest.mark.parametrize("weighed", [False, True], ids=["", "edge weights"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str, mode: str, weighed: bool) -> None:
    encoder, dense = make(name)
    neighbourhood = neighbourhood_of(encoder.layers, mode)
    rows = slice(None) if mode == "all" else SEEDS
    table = embeddings().requires_grad_()
    given = table if neighbourhood.input_nodes is None else table[neighbourhood.input_nodes]
    view = PropagationView(edge_weight=edge_factors) if weighed else PLAIN
    vectors, ego = encoder.encode(neighbourhood, given, view)
    readout = getattr(encoder, "readout", "last")
    wanted = read_out(dense(encoder, table, dense_factors() if weighed else None), readout)[rows]
    assert vectors.shape == (len(wanted), encoder.width(DIM))
    np.testing.assert_allclose(vectors.detach(), wanted.detach(), **TOLERANCE)
    assert torch.equal(ego, table[rows])
    parameters = [table, *encoder.parameters()]
    towards = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    found = torch.autograd.grad((vectors * towards).sum(), parameters)
    gradients = torch.autograd.grad((wanted * towards).sum(), parameters)
    for mine, gradient in zip(found, gradients, strict=True):
        np.testing.assert_allclose(mine, gradient, rtol=0, atol=5e-6)
    assert encoder.layers == 0 or not weighed or not torch.allclose(vectors, encoder.encode(neighbourhood, given)[0])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["graphsage", "gat"])
def test_weights_of_the_relation_reach_dgl_layers(name: str, mode: str) -> None:
    """A block leaves them to the layer: noise on edges would otherwise change nothing."""
    encoder, dense = make(name)
    weight = torch.zeros(NUM_NODES, NUM_NODES, dtype=torch.float64)
    for node in range(NUM_NODES):
        for place in range(WEIGHTED.indptr[node], WEIGHTED.indptr[node + 1]):
            weight[node, int(WEIGHTED.indices[place])] = float(WEIGHTED.weight[place])
    neighbourhood = neighbourhood_of(2, mode, "weighted")
    table = embeddings()
    given = table if neighbourhood.input_nodes is None else table[neighbourhood.input_nodes]
    rows = slice(None) if mode == "all" else SEEDS
    both = PropagationView(edge_weight=edge_factors)
    for view, factors in ((PLAIN, weight), (both, weight * dense_factors())):
        wanted = read_out(dense(encoder, table, factors), encoder.readout)[rows]
        np.testing.assert_allclose(encoder.encode(neighbourhood, given, view)[0].detach(), wanted.detach(), **TOLERANCE)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("readout", ["last", "concat"])
def test_lightgcn_with_something_after_every_hop(readout: str, mode: str) -> None:
    """A view is as wide as the vectors that it is a view of."""
    encoder = LightGCNEncoder(layers=2, readout=readout)
    neighbourhood = neighbourhood_of(2, mode)
    table, graph = embeddings(), torch.from_numpy(propagation_matrix())
    given = table if neighbourhood.input_nodes is None else table[neighbourhood.input_nodes]
    vectors, _ = encoder.encode(neighbourhood, given, PropagationView(after_hop=lambda z: 3 * z + z.sign()))
    levels = [table]
    for _ in range(2):
        z = graph @ levels[-1]
        levels.append(3 * z + z.sign())
    wanted = read_out(levels, readout)
    np.testing.assert_allclose(vectors, wanted[slice(None) if mode == "all" else SEEDS], **TOLERANCE)
    assert vectors.shape[1] == encoder.width(DIM)


@pytest.mark.parametrize("name", CASES)
def test_simgcl_noise_has_its_length_after_every_hop(name: str) -> None:
    encoder, _ = make(name)
    noise, seen = SimGCLNoise(norm=0.3), []

    def spy(z: Tensor) -> Tensor:
        seen.append((z, noise(z)))
        return seen[-1][1]

    torch.manual_seed(4)
    neighbourhood = neighbourhood_of(encoder.layers, "all")
    vectors, _ = encoder.encode(neighbourhood, embeddings(), PropagationView(after_hop=spy))
    assert len(seen) == max(1, encoder.layers)
    for before, after in seen:
        moved = before.abs().sum(1) > 0
        length = (after - before).norm(dim=1)
        np.testing.assert_allclose(length[moved].detach(), 0.3, rtol=1e-9)
        assert not length[~moved].any() and bool((after.sign() == before.sign()).all())
    assert torch.isfinite(vectors).all() and not torch.allclose(
        vectors, encoder.encode(neighbourhood, embeddings())[0], atol=1e-3
    )


@pytest.mark.parametrize("viewed", [False, True], ids=["plain", "view"])
def test_half_precision_inside_lightgcn_is_for_training_only(viewed: bool) -> None:
    view = PropagationView(edge_weight=lambda hop, h: h.new_ones(hop.structure.num_edges)) if viewed else PLAIN
    exact = read_out(lightgcn_levels(LightGCNEncoder(layers=2), embeddings(), None), "mean").float()
    encoder = LightGCNEncoder(layers=2, dtype=torch.bfloat16)
    error = {}
    for training in (True, False):
        vectors, _ = encoder.train(training).encode(neighbourhood_of(2, "all"), embeddings().float(), view)
        assert vectors.dtype == torch.float32
        error[training] = float((vectors - exact).abs().max())
    assert error[False] < 1e-6 < 1e-4 < error[True] < 2e-2


@pytest.mark.parametrize("name", ["ngcf", "graphsage", "gat"])
def test_dropout_is_for_training_only(name: str) -> None:
    kinds = {"ngcf": lambda: NGCFEncoder(dim=DIM, layers=2, dropout=0.5)}
    encoder = kinds.get(name, lambda: DGLEncoder(kind=name, dim=DIM, layers=2, dropout=0.5))().double()
    neighbourhood = neighbourhood_of(2, "all")
    first, second = (encoder.train().encode(neighbourhood, embeddings())[0] for _ in range(2))
    assert not torch.allclose(first, second)
    first, second = (encoder.eval().encode(neighbourhood, embeddings())[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", CASES)
def test_what_is_stackable_treats_columns_apart(name: str) -> None:
    """Several strands go through side by side exactly where that is the same as one after the other."""
    encoder, _ = make(name)
    if not encoder.stackable:
        with pytest.raises(RuntimeError):
            encoder.encode(neighbourhood_of(encoder.layers, "all"), torch.cat([embeddings(), embeddings()], dim=1))
        return
    neighbourhood = neighbourhood_of(encoder.layers, "all")
    wide, _ = encoder.encode(neighbourhood, torch.cat([embeddings(), -(embeddings() ** 2)], dim=1))
    one, other = (encoder.encode(neighbourhood, h)[0] for h in (embeddings(), -(embeddings() ** 2)))
    levels = one.shape[1] // DIM
    parts = [part for pair in zip(one.chunk(levels, 1), other.chunk(levels, 1), strict=True) for part in pair]
    assert torch.allclose(wide, torch.cat(parts, dim=1))
