"""LightGCN against dense matrices on twelve nodes: values and gradients of every readout and depth.

All in fp64, but for the degrees' roots, which relations keep in fp32: hence the tolerance.
"""

from itertools import product

import numpy as np
import pytest
import torch
from dense_oracles import ITEMS, NUM_ITEMS, NUM_NODES, NUM_USERS, USERS, lightgcn_gradient, lightgcn_vectors
from model_inputs import inputs_for

from braidrec.graph.build import build_interactions
from braidrec.graph.neighbourhood import FullGraph, SampledSubgraph
from braidrec.graph.relation import INTERACTIONS
from braidrec.models.contract import Encoded
from braidrec.models.lightgcn import LightGCN

DIM = 3
RELATIONS = {INTERACTIONS: build_interactions(USERS, ITEMS, NUM_USERS, NUM_ITEMS)}
READOUTS = ("mean", "sum", "last", "concat")
CASES = list(product(range(1, 5), READOUTS))
SOME_SEEDS = torch.tensor([0, 3, 4, 6, 8, 11])


def embeddings() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(NUM_NODES, DIM, generator=generator, dtype=torch.float64)


def upstream(rows: int, width: int) -> np.ndarray:
    return np.random.default_rng(6).standard_normal((rows, width))


def encode(model: LightGCN, source: FullGraph | SampledSubgraph, seeds: torch.Tensor | None, table: torch.Tensor):
    sizes = {"num_users": NUM_USERS, "num_items": NUM_NODES - NUM_USERS}
    return model.encode(inputs_for(model, source, {"id": table}, seeds, **sizes))


def full_graph(kernel: str = "dgl") -> FullGraph:
    return FullGraph(RELATIONS, device=torch.device("cpu"), kernel=kernel)


@pytest.mark.parametrize(("layers", "readout"), CASES)
@pytest.mark.parametrize("kernel", ["dgl", "torch"])
def test_all_nodes_on_the_whole_graph(layers: int, readout: str, kernel: str) -> None:
    table = embeddings().requires_grad_()
    encoded = encode(LightGCN(dim=DIM, layers=layers, readout=readout), full_graph(kernel), None, table)
    wanted = lightgcn_vectors(table.detach().numpy(), layers, readout)
    np.testing.assert_allclose(encoded.vectors.detach().numpy(), wanted, rtol=0, atol=5e-7)
    given = upstream(*wanted.shape)
    (encoded.vectors * torch.from_numpy(given)).sum().backward()
    np.testing.assert_allclose(table.grad.numpy(), lightgcn_gradient(given, layers, readout), rtol=0, atol=5e-7)


@pytest.mark.parametrize(("layers", "readout"), CASES)
@pytest.mark.parametrize("sampled", [False, True])
def test_some_seeds(layers: int, readout: str, sampled: bool) -> None:
    """The rows of the seeds alone, from the whole graph and from a sampled one that takes every neighbour."""
    source = full_graph()
    if sampled:
        source = SampledSubgraph(RELATIONS, device=torch.device("cpu"), kernel="dgl")
    table = embeddings().requires_grad_()
    encoded = encode(LightGCN(dim=DIM, layers=layers, readout=readout), source, SOME_SEEDS, table)
    whole = lightgcn_vectors(table.detach().numpy(), layers, readout)
    np.testing.assert_allclose(encoded.vectors.detach().numpy(), whole[SOME_SEEDS], rtol=0, atol=5e-7)
    np.testing.assert_array_equal(encoded.ego.detach().numpy(), table.detach().numpy()[SOME_SEEDS])
    given = np.zeros_like(whole)
    given[SOME_SEEDS] = upstream(len(SOME_SEEDS), whole.shape[1])
    (encoded.vectors * torch.from_numpy(given[SOME_SEEDS])).sum().backward()
    np.testing.assert_allclose(table.grad.numpy(), lightgcn_gradient(given, layers, readout), rtol=0, atol=5e-7)


def test_four_nodes_by_hand() -> None:
    """Users a, b; items x, y; edges ax, bx, by. Degrees 1, 2, 2, 1; one layer, mean of layers 0 and 1."""
    relation = build_interactions(np.array([0, 1, 1]), np.array([0, 0, 1]), 2, 2)
    graph = FullGraph({INTERACTIONS: relation}, device=torch.device("cpu"), kernel="torch")
    model = LightGCN(dim=1, layers=1)
    table = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    encoded = model.encode(inputs_for(model, graph, {"id": table}, None, num_users=2, num_items=2))
    half = 0.5**0.5
    wanted = [
        (1 + half * 4) / 2,
        (2 + 0.5 * 4 + half * 8) / 2,
        (4 + half * 1 + 0.5 * 2) / 2,
        (8 + half * 2) / 2,
    ]
    assert encoded.vectors[:, 0].tolist() == pytest.approx(wanted, rel=1e-6)


def test_ego_rows_are_the_embeddings_of_the_seeds() -> None:
    table = embeddings()
    encoded = encode(LightGCN(dim=DIM, layers=2), full_graph(), None, table)
    assert torch.equal(encoded.ego, table)


def test_half_precision_is_for_training_only() -> None:
    """Evaluation and export propagate in the format of the embeddings, whatever the hops of training used."""
    table = embeddings().float()
    model = LightGCN(dim=DIM, layers=2, dtype=torch.bfloat16)
    exact = lightgcn_vectors(table.double().numpy(), 2, "mean")
    trained: Encoded = encode(model.train(), full_graph(), None, table)
    assert trained.vectors.dtype == torch.float32
    error = np.abs(trained.vectors.numpy() - exact).max()
    assert 1e-5 < error < 2e-2
    evaluated: Encoded = encode(model.eval(), full_graph(), None, table)
    np.testing.assert_allclose(evaluated.vectors.numpy(), exact, rtol=1e-5, atol=1e-6)


def test_table_starts_as_asked() -> None:
    (spec,) = LightGCN(dim=40, layers=1, initial_std=0.3).tables().values()
    rows = spec.initialise(5_000, torch.Generator().manual_seed(1))
    again = spec.initialise(5_000, torch.Generator().manual_seed(1))
    assert torch.equal(rows, again)
    assert rows.shape == (5_000, 40)
    # 200,000 draws: standard errors of mean and deviation are 0.0007 and 0.0005; six of them are never exceeded.
    assert abs(float(rows.mean())) < 0.0042
    assert abs(float(rows.std()) - 0.3) < 0.003


@pytest.mark.parametrize("readout", ["mean", "sum", "concat"])
def test_level_zero_left_out(readout: str) -> None:
    table = embeddings()
    encoded = encode(LightGCN(dim=DIM, layers=3, readout=readout, ego=False), full_graph(), None, table)
    levels = np.split(lightgcn_vectors(table.numpy(), 3, "concat"), 4, axis=1)[1:]
    wanted = {"mean": sum(levels) / 3, "sum": sum(levels), "concat": np.concatenate(levels, axis=1)}[readout]
    np.testing.assert_allclose(encoded.vectors.numpy(), wanted, rtol=0, atol=5e-7)
    np.testing.assert_array_equal(encoded.ego.numpy(), table.numpy())
