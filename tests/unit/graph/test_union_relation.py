"""Parts put together as one relation, against the dense matrices that they came from."""

import numpy as np
import pytest
import scipy.sparse
import torch
from graph_oracles import CPU

from braidrec.graph.neighbourhood import FullGraph, HopSpec
from braidrec.graph.union import union_relation

NUM_NODES = 9


def random_parts(seed: int, density: float = 0.3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(NUM_NODES, NUM_NODES)) * (rng.random((NUM_NODES, NUM_NODES)) < density) for _ in range(3)]


def test_edges_and_what_each_part_has_on_them() -> None:
    parts = random_parts(0)
    relation, values = union_relation("both", [scipy.sparse.coo_matrix(part) for part in parts])
    assert relation.name == "both" and relation.weight is None and not relation.symmetric
    seen = set()
    for node in range(NUM_NODES):
        for edge in range(relation.indptr[node], relation.indptr[node + 1]):
            source = int(relation.indices[edge])
            seen.add((node, source))
            np.testing.assert_allclose(values[edge], [part[node, source] for part in parts], rtol=1e-6)
    assert seen == {(i, j) for i in range(NUM_NODES) for j in range(NUM_NODES) if any(part[i, j] for part in parts)}


def test_a_hop_multiplies_by_the_weighted_sum() -> None:
    parts = random_parts(1)
    relation, values = union_relation("both", [scipy.sparse.csr_matrix(part) for part in parts])
    shares = torch.tensor([0.2, 0.5, 0.3])
    (hop,) = (
        FullGraph({"both": relation}, device=CPU, kernel="dgl").neighbourhood([HopSpec(relation="both")], None).hops
    )
    h = torch.randn(NUM_NODES, 4, generator=torch.Generator().manual_seed(2))
    found = hop.aggregate(h, torch.from_numpy(values) @ shares, normalise="sum")
    wanted = sum(share * part for share, part in zip(shares.tolist(), parts, strict=True)) @ h.numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_entries_that_cancel_or_are_stored_zeros() -> None:
    """Two parts with opposite entries share an edge; a stored zero is none."""
    one = scipy.sparse.csr_matrix(([1.0, 0.0], ([0, 1], [2, 2])), shape=(3, 3))
    relation, values = union_relation("both", [one, -one])
    assert (relation.indptr.tolist(), relation.indices.tolist()) == ([0, 1, 1, 1], [2])
    assert values.tolist() == [[1.0, -1.0]]


def test_no_edges() -> None:
    relation, values = union_relation("none", [scipy.sparse.csr_matrix((4, 4))])
    assert (relation.num_nodes, relation.num_edges, values.shape) == (4, 0, (0, 1))


@pytest.mark.parametrize("sizes", [[], [3, 4]])
def test_parts_of_one_size(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="matrices of one size"):
        union_relation("both", [scipy.sparse.csr_matrix((size, size)) for size in sizes])
