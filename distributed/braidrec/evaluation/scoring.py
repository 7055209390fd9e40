"""A model and its tables → final vectors, computed exactly over the whole graph."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from braidrec.evaluation.ranker import VectorRanker
from braidrec.graph.neighbourhood import FullGraph, HopSpec
from braidrec.models.contract import Inputs, Recommender


@torch.no_grad()
def exact_vectors(
    model: Recommender,
    tables: Mapping[str, Tensor],
    graph: FullGraph,
    chains: Mapping[str, Sequence[HopSpec]],
    num_users: int,
) -> Tensor:
    """`[num_nodes, D]` vectors of all nodes. Nothing is sampled, whatever the model was trained with.

    Args:
        tables: by name, `[num_nodes, width]`.
        chains: by branch, the hops in the order of propagation; their fan-outs are not used.
    """
    neighbourhoods = {name: graph.neighbourhood(chain, None) for name, chain in chains.items()}
    rows = {branch: dict(tables) for branch in neighbourhoods}
    inputs = Inputs(seeds=None, num_users=num_users, neighbourhoods=neighbourhoods, rows=rows)
    return model.encode(inputs).vectors


def vector_ranker(vectors: Tensor, num_users: int, offset: float = 0.0) -> VectorRanker:
    """A ranker from the vectors of all nodes."""
    return VectorRanker(vectors[:num_users], vectors[num_users:], offset)
