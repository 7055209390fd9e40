"""DGL's partitions: every edge in one part, its ends as in the whole; a hop inside a part is one on the whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from graph_oracles import CPU, both_directions, random_pairs, relation_of

from braidrec.graph.metis import joined, num_partitions, read_partition, write_partitions
from braidrec.graph.neighbourhood import SampledSubgraph, hop_specs
from braidrec.graph.relation import INTERACTIONS, Relation

USERS, NODES = 60, 100
RELATION = relation_of(
    INTERACTIONS, both_directions(random_pairs(8, USERS, NODES - USERS, 260), USERS), NODES, symmetric=True
)


@pytest.fixture(scope="module", params=[1, 2, 3])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp(f"parts-{request.param}")
    write_partitions(RELATION, target, request.param)
    assert num_partitions(target) == request.param
    return target


def edges_of(relation: Relation, nodes: np.ndarray) -> list[tuple[int, int]]:
    destinations = np.repeat(np.arange(relation.num_nodes), np.diff(relation.indptr))
    return list(zip(nodes[relation.indices].tolist(), nodes[destinations].tolist(), strict=True))


def test_every_node_and_edge_is_in_one_part(folder: Path) -> None:
    parts = [read_partition(folder, part) for part in range(num_partitions(folder))]
    owned = np.concatenate([part.nodes[: part.num_own] for part in parts])
    assert sorted(owned.tolist()) == list(range(NODES))
    assert max(part.num_own for part in parts) - min(part.num_own for part in parts) <= NODES // 10
    found = [edge for part in parts for edge in edges_of(part.relation, part.nodes)]
    assert sorted(found) == sorted(edges_of(RELATION, np.arange(NODES)))
    for part in parts:
        assert not np.diff(part.relation.indptr)[part.num_own :].any()  # edges end at own nodes alone


def test_joined_is_the_whole(folder: Path) -> None:
    whole = joined(folder)
    assert (whole.name, whole.symmetric) == (RELATION.name, RELATION.symmetric)
    np.testing.assert_array_equal(whole.indptr, RELATION.indptr)
    np.testing.assert_array_equal(whole.indices, RELATION.indices)


def test_a_hop_inside_a_part_is_that_of_the_whole(folder: Path) -> None:
    table = torch.randn(NODES, 5, generator=torch.Generator().manual_seed(1))
    for number in range(num_partitions(folder)):
        part = read_partition(folder, number)
        sums = []
        for relation, seeds, nodes in (
            (part.relation, torch.arange(part.num_own), torch.from_numpy(part.nodes)),
            (RELATION, torch.from_numpy(part.nodes[: part.num_own]), torch.arange(NODES)),
        ):
            source = SampledSubgraph({INTERACTIONS: relation}, device=CPU, kernel="dgl")
            (hop,) = source.neighbourhood(hop_specs([INTERACTIONS], [-1]), seeds).hops
            sums.append(hop.aggregate(table[nodes[hop.src_nodes]], normalise="sum"))
        torch.testing.assert_close(sums[0], sums[1])


def test_what_cannot_be_partitioned(tmp_path: Path, folder: Path) -> None:
    weighted = Relation(
        "w", RELATION.indptr, RELATION.indices, symmetric=True, weight=np.ones(RELATION.num_edges, "f4")
    )
    with pytest.raises(ValueError, match="relation 'w' has weights"):
        write_partitions(weighted, tmp_path, 2)
    for parts in (0, NODES + 1):
        with pytest.raises(ValueError, match=f"from 1 to the number of nodes \\(100\\), not {parts}"):
            write_partitions(RELATION, tmp_path, parts)
    with pytest.raises(ValueError, match="has the parts 0 … "):
        read_partition(folder, num_partitions(folder))
    with pytest.raises(FileNotFoundError):
        read_partition(tmp_path / "none", 0)
