"""Item–item relations from the neighbours that content gives, and several of them combined into one."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import scipy.sparse

from braidrec.graph.knn import Neighbours
from braidrec.graph.matrix import matrix_from_relation, normalised_matrix, relation_from_matrix
from braidrec.graph.relation import Relation

CONTENT = "content"
ContentWeight = Literal["binary", "similarity"]
Direction = Literal["directed", "either"]


def content_relation(
    neighbours: Neighbours,
    num_users: int,
    modality: str,
    *,
    weight: ContentWeight = "binary",
    direction: Direction = "directed",
) -> Relation:
    """The relation `content/<modality>`: an item's in-neighbours are the items most similar to it. Users have no edges.

    Published item–item graphs (Zhang et al., LATTICE, ACM Multimedia 2021; Zhou & Shen, FREEDOM, ACM Multimedia 2023)
    are directed, since i may be among the nearest of j but not the reverse, and are normalised on both sides by the row
    sums r of the adjacency matrix A: `Ŝ_ij = A_ij / √(r_i r_j)`. That is what a directed relation does here, by final
    weights. (The hop's own normalisation would divide by √(d_in(i) d_out(j)), and out-degrees vary a lot in a neighbour
    graph whose row sums are all alike.) In an undirected relation both are the same thing, and the hop does it.

    Args:
        neighbours: of all items, from `content_neighbours`.
        num_users: item i is node num_users + i.
        modality: names the relation.
        weight: "binary" (FREEDOM) or "similarity" (LATTICE), with edges of similarity ≤ 0 left out as LATTICE does.
        direction: "directed" as published; "either" joins i and j if one is a neighbour of the other.
    Raises:
        ValueError: an unknown `weight` or `direction`.
    """
    if weight not in ("binary", "similarity"):
        raise ValueError(f"weight must be 'binary' or 'similarity', not {weight!r}")
    if direction not in ("directed", "either"):
        raise ValueError(f"direction must be 'directed' or 'either', not {direction!r}")
    name = f"{CONTENT}/{modality}"
    adjacency = _adjacency(neighbours, weight)
    nodes = {"first_node": num_users, "num_nodes": num_users + adjacency.shape[0]}
    if direction == "either":
        adjacency = adjacency.maximum(adjacency.T.tocsr())
        return relation_from_matrix(name, adjacency, **nodes, symmetric=True, weighted=weight == "similarity")
    row_sums = np.asarray(adjacency.sum(axis=1)).ravel()
    scaled = normalised_matrix(adjacency, row_sums, row_sums)
    return relation_from_matrix(name, scaled, **nodes, symmetric=False, weighted=True, weights_are_final=True)


def combined_relation(relations: Mapping[str, Relation], weights: Mapping[str, float], name: str = CONTENT) -> Relation:
    """`S = Σ_m w_m Ŝ^m` as one relation with final weights, so that one hop propagates over all modalities.

    Ŝ^m is a relation as its hop applies it with normalise="symmetric". An edge of S is an edge of any of them; edges
    whose sum is zero are left out.

    Args:
        relations: by modality, over the same nodes.
        weights: by modality, at least 0.
        name: of the result.
    Raises:
        ValueError: modalities that do not match, a weight below 0 or not finite, relations over different nodes.
    """
    if not relations or set(relations) != set(weights):
        raise ValueError(f"weights are for {sorted(weights)}, relations for {sorted(relations)}: one weight a relation")
    for modality, weight in weights.items():
        if not 0 <= weight < np.inf:
            raise ValueError(f"the weight of {modality!r} must be a finite number not below 0, not {weight}")
    sizes = {modality: relation.num_nodes for modality, relation in relations.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"the relations must be over the same nodes, but have {sizes}")
    total: Any = None
    # In the order of their names: the order of a mapping must not change the last bit of a sum.
    for modality in sorted(relations):
        part = matrix_from_relation(relations[modality]) * weights[modality]
        total = part if total is None else total + part
    symmetric = all(relation.symmetric for relation in relations.values())
    return relation_from_matrix(
        name,
        total,
        first_node=0,
        num_nodes=total.shape[0],
        symmetric=symmetric,
        weighted=True,
        weights_are_final=True,
    )


def _adjacency(neighbours: Neighbours, weight: ContentWeight) -> Any:
    """`[num_items, num_items]` fp64 CSR; row i holds the neighbours of item i."""
    indices, similarity = neighbours
    found = indices >= 0
    if weight == "similarity":
        found = found & (similarity > 0)
    rows, _ = np.nonzero(found)
    values = similarity[found].astype(np.float64) if weight == "similarity" else np.ones(len(rows))
    return scipy.sparse.csr_matrix((values, (rows, indices[found])), shape=(len(indices), len(indices)))
