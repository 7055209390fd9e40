"""Prediction of how much the neighbourhoods of two nodes have in common."""

from collections.abc import Mapping

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from braidrec.graph.relation import Relation
from braidrec.models.contract import Encoded, Inputs, LossTerm, StepContext
from braidrec.models.tasks.contract import Represents
from braidrec.models.tasks.targets import PARTS, Target, rows_of_side, side_of
from braidrec.objectives.self_supervised.neighbourhood_similarity import NeighbourhoodSimilarity


class MatchNeighbourhoods(nn.Module):
    """`coefficient · mean_i` of `NeighbourhoodSimilarity` over the distinct users, and items, of the batch.

    N(i) are a node's neighbours among the train interactions: the items of a user, the users of an item. Every node is
    compared with all others of its side in the batches of all workers, so that the number of workers changes nothing.

    Args:
        target: which nodes.
        interactions: the train graph; None where the model only represents.
        coefficient: weight of the task.
    """

    propagates_anew = False

    def __init__(self, *, target: Target, interactions: Relation | None, coefficient: float) -> None:
        super().__init__()
        self.target, self.interactions, self.coefficient = target, interactions, coefficient
        self.parts = PARTS[target]
        self.loss = NeighbourhoodSimilarity()

    def views(self, layers: int) -> Mapping[str, tuple[str, ...]]:
        """None."""
        return {}

    def terms(self, model: Represents, encoded: Encoded, inputs: Inputs, step: StepContext) -> Mapping[str, LossTerm]:
        """One a side."""
        assert inputs.seeds is not None and self.interactions is not None
        found = {}
        for part in self.parts:
            rows = rows_of_side(side_of(self.target, part), inputs, step)
            rows = rows[step.seed_weight[rows] > 0]  # a node in the batches of several workers belongs to one of them
            vectors, nodes = encoded.vectors[rows], inputs.seeds[rows]
            others, other_nodes = step.gather(vectors), step.gather(nodes)
            similarity = overlaps(self.interactions, nodes, other_nodes).to(vectors)
            values = self.loss.rows(vectors, others, similarity, nodes.unsqueeze(1) != other_nodes)
            weight = values.new_full((), len(nodes))
            found[part] = LossTerm(total=values.sum(), weight=weight, coefficient=self.coefficient)
        return found


def overlaps(relation: Relation, nodes: Tensor, others: Tensor) -> Tensor:
    """`[len(nodes), len(others)]` fp32 on the CPU: the cosine of the two nodes' sets of in-neighbours, 0 where a set is
    empty. Only the rows of these nodes are multiplied."""
    first, second = _rows_of(relation, nodes), _rows_of(relation, others)
    common = np.asarray((first @ second.T).toarray(), dtype=np.float32)
    sizes = np.sqrt(np.outer(np.diff(first.indptr), np.diff(second.indptr)), dtype=np.float32)
    return torch.from_numpy(np.divide(common, sizes, out=np.zeros_like(common), where=sizes > 0))


def _rows_of(relation: Relation, nodes: Tensor) -> scipy.sparse.csr_matrix:
    """`[len(nodes), num_nodes]` ones where a node has an in-neighbour."""
    structure, _ = relation.structure.rows(nodes.cpu())
    entries = np.ones(structure.num_edges, dtype=np.float32)
    edges = (entries, structure.indices.numpy(), structure.indptr.numpy())
    return scipy.sparse.csr_matrix(edges, shape=(len(nodes), relation.num_nodes))
