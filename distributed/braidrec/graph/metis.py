"""Graphs beyond one machine's memory: DGL's METIS partitions as relations.

`dgl.distributed.partition_graph` cuts a graph into parts of about as many nodes, with few edges between them (Karypis &
Kumar, METIS, SIAM Journal on Scientific Computing 1998), and writes one folder a part. A part holds the in-edges of its
own nodes, and the nodes of other parts that these come from (its halo), so that one hop needs nothing else. DGL numbers
nodes anew, part after part, and keeps no record of the old numbers: they are stored beside the parts here.
"""

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from braidrec.graph.dgl_import import dgl
from braidrec.graph.relation import Relation

DESCRIPTION = "relation.json"
ORIGINAL_NODES = "original_nodes.npy"


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One part.

    Attributes:
        relation: over the part's nodes, its own first and then its halo; it has the in-edges of its own nodes. Degrees
            of halo nodes, and those of sources, are not known from it: normalise with the degrees of the whole.
        nodes: `[relation.num_nodes]` int64, the nodes in the numbers of the whole relation.
        num_own: how many of them belong to the part.
    """

    relation: Relation
    nodes: NDArray[np.int64]
    num_own: int


def write_partitions(relation: Relation, folder: Path, num_parts: int) -> None:
    """Cut `relation` into `num_parts` and write them to `folder`.

    Edge weights are not taken along. METIS runs in this process and needs several times the graph's memory.

    Raises:
        ValueError: weights, or a number of parts that makes no sense.
    """
    if relation.weight is not None:
        raise ValueError(f"relation {relation.name!r} has weights, which partitions do not hold")
    if not 1 <= num_parts <= relation.num_nodes:
        raise ValueError(f"num_parts must be from 1 to the number of nodes ({relation.num_nodes}), not {num_parts}")
    folder.mkdir(parents=True, exist_ok=True)
    indptr, indices = (dgl.backend.tensor(values.astype(np.int64)) for values in (relation.indptr, relation.indices))
    graph = dgl.graph(("csc", (indptr, indices, indices.new_empty(0))), num_nodes=relation.num_nodes)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints each of its stages
        original, _ = import_module("dgl.distributed").partition_graph(
            graph, "relation", num_parts, str(folder), num_hops=1, part_method="metis", return_mapping=True
        )
    np.save(folder / ORIGINAL_NODES, original.numpy())
    known = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    known["braidrec"] = {"name": relation.name, "symmetric": relation.symmetric}
    (folder / DESCRIPTION).write_text(json.dumps(known, indent=1), encoding="utf-8")


def num_partitions(folder: Path) -> int:
    """How many parts a folder has."""
    return int(_description(folder)["num_parts"])


def read_partition(folder: Path, part: int) -> Partition:
    """One part of what `write_partitions` wrote, without looking at the others.

    Raises:
        FileNotFoundError: no partitions there.
        ValueError: no such part.
    """
    known = _description(folder)
    if not 0 <= part < known["num_parts"]:
        raise ValueError(f"{folder} has the parts 0 … {known['num_parts'] - 1}, not {part}")
    original = np.load(folder / ORIGINAL_NODES, mmap_mode="r", allow_pickle=False)
    (graph,), _ = dgl.load_graphs(str(folder / known[f"part-{part}"]["part_graph"]))
    num_own = int(graph.ndata["inner_node"].sum())
    assert bool(graph.ndata["inner_node"][:num_own].all()), "DGL puts a part's own nodes first"
    sources, destinations = (ends[graph.edata["inner_edge"].bool()].numpy() for ends in graph.edges())
    matrix = scipy.sparse.csr_matrix(
        (np.ones(len(sources), dtype=np.int8), (destinations, sources)), shape=(graph.num_nodes(),) * 2
    )
    matrix.sort_indices()
    relation = Relation(known["braidrec"]["name"], matrix.indptr, matrix.indices, symmetric=False)
    return Partition(relation=relation, nodes=original[graph.ndata[dgl.NID].numpy()], num_own=num_own)


def joined(folder: Path) -> Relation:
    """The whole relation again, from all parts, for a machine whose memory holds it."""
    known = _description(folder)
    rows, columns = list[NDArray[Any]](), list[NDArray[Any]]()
    for part in _partitions(folder):
        counts = np.diff(part.relation.indptr)
        rows.append(np.repeat(part.nodes, counts))
        columns.append(part.nodes[part.relation.indices])
    ends = (np.concatenate(rows), np.concatenate(columns))
    ones = np.ones(len(ends[0]), dtype=np.int8)
    matrix = scipy.sparse.csr_matrix((ones, ends), shape=(known["num_nodes"],) * 2)
    matrix.sort_indices()
    about = known["braidrec"]
    return Relation(about["name"], matrix.indptr, matrix.indices, symmetric=about["symmetric"])


def _partitions(folder: Path) -> Iterator[Partition]:
    return (read_partition(folder, part) for part in range(num_partitions(folder)))


def _description(folder: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    return known
