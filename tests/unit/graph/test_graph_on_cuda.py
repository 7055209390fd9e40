"""The same numbers on a CUDA device as on the CPU, with the kernel that the device gets and with torch's."""

import pytest
import torch
from graph_oracles import CPU, both_directions, random_edges, random_pairs, relation_of, rows

from braidrec.graph.kernels import choose_kernel, weighted_sum_sources
from braidrec.graph.neighbourhood import FullGraph, SampledSubgraph, hop_specs
from braidrec.graph.propagate import propagate
from braidrec.graph.relation import INTERACTIONS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

U, N, DIM = 40, 70, 32
EDGES = {
    INTERACTIONS: both_directions(random_pairs(11, U, N - U, 300), U),
    "also_viewed": random_edges(12, range(U, N), 150),
}
RELATIONS = {name: relation_of(name, edges, N, symmetric=name == INTERACTIONS) for name, edges in EDGES.items()}
SEEDS = torch.tensor([50, 3, N - 1, 0, 45, U - 1, 12])


def value_and_gradient(
    make: type, device: torch.device, kernel: str, chain: tuple[str, ...], dtype: torch.dtype | None
):
    source = make(RELATIONS, device=device, kernel=kernel)
    neighbourhood = source.neighbourhood(hop_specs(chain, [3]), SEEDS.to(device), step_seed=5)
    h = rows(1, N, DIM).to(device).requires_grad_()
    inputs = h if neighbourhood.input_nodes is None else h[neighbourhood.input_nodes]
    out = torch.stack(propagate(neighbourhood, inputs, dtype=dtype))
    (out * rows(2, len(SEEDS), DIM).to(device)).sum().backward()
    assert out.device.type == device.type
    return out.detach().cpu(), h.grad.cpu()


@pytest.mark.parametrize("kernel", ["auto", "torch"])
@pytest.mark.parametrize("make", [FullGraph, SampledSubgraph])
@pytest.mark.parametrize("chain", [(INTERACTIONS,) * 3, ("also_viewed", INTERACTIONS, "also_viewed")])
@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-5), (torch.bfloat16, 0.05)])
def test_propagation(
    make: type, chain: tuple[str, ...], kernel: str, dtype: torch.dtype | None, tolerance: float
) -> None:
    device = torch.device("cuda")
    chosen = choose_kernel(device, kernel)
    found = value_and_gradient(make, device, chosen, chain, dtype)
    for mine, wanted in zip(found, value_and_gradient(make, CPU, "dgl", chain, dtype), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kernel", ["auto", "torch"])
@pytest.mark.parametrize("name", EDGES)
def test_edge_weights(name: str, kernel: str) -> None:
    results = []
    for device in (CPU, torch.device("cuda")):
        structure = RELATIONS[name].structure.to(device)
        h = rows(1, N, DIM).to(device).requires_grad_()
        weight = rows(3, structure.num_edges, 1).flatten().to(device).requires_grad_()
        out = weighted_sum_sources(structure, h, weight, choose_kernel(device, kernel))
        (out * rows(2, N, DIM).to(device)).sum().backward()
        results.append([out.detach().cpu(), h.grad.cpu(), weight.grad.cpu()])
    for mine, wanted in zip(*results, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-5)
