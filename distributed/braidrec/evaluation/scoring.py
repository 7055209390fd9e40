"""A model and its tables → final representations, computed exactly over the whole graph."""

from collections.abc import Mapping

import torch
from torch import Tensor

from braidrec.evaluation.mixture_ranker import MixtureRanker
from braidrec.evaluation.ranker import Ranker, VectorRanker
from braidrec.graph.neighbourhood import FullGraph, hop_specs
from braidrec.models.contract import Encoded, FetchFeatures, Inputs, LearnsRelations, Recommender, ScoresByMixture


@torch.no_grad()
def encode_exactly(
    model: Recommender,
    tables: Mapping[str, Tensor],
    graph: FullGraph,
    features: FetchFeatures,
    num_users: int,
    cold: Tensor,
) -> Encoded:
    """All nodes, `[num_nodes, D]`, users first. Nothing is sampled, whatever the model was trained with.

    Args:
        tables: by name, all their rows.
        graph: of the relations that stay as they are; it gets those that the model learns.
        features: as `Inputs.features`.
        cold: `[num_items]` items without train interactions.
    """
    learn_relations(model, graph, features, num_users)
    return model.encode(whole_inputs(model, tables, graph, features, num_users, cold))


def learn_relations(model: Recommender, graph: FullGraph, features: FetchFeatures, num_users: int) -> None:
    """Give the graph the relations that the model makes from its parameters as they are, if it makes any."""
    if isinstance(model, LearnsRelations):
        for relation in model.learned_relations(features, graph.relations, num_users=num_users).values():
            graph.replace(relation)


def chains_of_evaluation(model: Recommender, graph: FullGraph) -> dict[str, tuple[str, ...]]:
    """The chains of relations by branch. One over a relation that the model has yet to make is left out."""
    chains = {name: branch.relations(training=False) for name, branch in model.branches().items()}
    made = graph.relations.keys() if isinstance(model, LearnsRelations) else None
    return {name: chain for name, chain in chains.items() if chain is not None and (made is None or made >= set(chain))}


def whole_inputs(
    model: Recommender,
    tables: Mapping[str, Tensor],
    graph: FullGraph,
    features: FetchFeatures,
    num_users: int,
    cold: Tensor,
) -> Inputs:
    """All nodes as seeds, over the chains of evaluation. Arguments as for `encode_exactly`.

    A branch over a relation that the model has yet to make (`LearnsRelations`) is left out.
    """
    neighbourhoods = {
        name: graph.neighbourhood(hop_specs(chain, (-1,)), None)
        for name, chain in chains_of_evaluation(model, graph).items()
    }
    return Inputs(
        seeds=None,
        num_users=num_users,
        num_items=len(cold),
        neighbourhoods=neighbourhoods,
        table=lambda name, nodes: tables[name] if nodes is None else tables[name][nodes],
        features=features,
        cold=cold,
    )


def ranker_of(
    model: Recommender,
    vectors: Tensor,
    num_users: int,
    offset: float = 0.0,
    *,
    cosine: bool = False,
    rating_bounds: tuple[float, float] | None = None,
) -> Ranker:
    """A ranker from the vectors of all nodes, by the model's own kind of score. Arguments as for `vector_ranker`."""
    if isinstance(model, ScoresByMixture):
        return MixtureRanker(vectors[:num_users], vectors[num_users:], model.mixture, offset)
    return vector_ranker(vectors, num_users, offset, cosine=cosine, rating_bounds=rating_bounds)


def vector_ranker(
    vectors: Tensor,
    num_users: int,
    offset: float = 0.0,
    *,
    cosine: bool = False,
    rating_bounds: tuple[float, float] | None = None,
) -> VectorRanker:
    """A ranker from the vectors of all nodes.

    Args:
        offset: added to every score.
        cosine: rank by the cosine of the vectors instead of their inner product.
        rating_bounds: as of `VectorRanker`.
    """
    if cosine:
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    return VectorRanker(vectors[:num_users], vectors[num_users:], offset, rating_bounds)
