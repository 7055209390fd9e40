"""A learned item graph as a dense matrix, made by a double loop over projected features."""

import torch
import torch.nn.functional as F  # noqa: N812
from item_graph_world import NUM_ITEMS, NUM_USERS, dense_content, nearest
from model_inputs import Features

from braidrec.models.learned_item_graph import LearnedItemGraph


def projected(graph: LearnedItemGraph, features: Features, place: int) -> torch.Tensor:
    (layer,) = graph.projectors[place].layers
    return features[graph.modalities[place]][0] @ layer.weight.T + layer.bias


def dense_graph(graph: LearnedItemGraph, features: Features, at_start: LearnedItemGraph | None = None) -> torch.Tensor:
    """S over all nodes; neighbours and degrees are those of the model as it was `at_start` of the epoch."""
    shares = graph.modality_logits.exp() / graph.modality_logits.exp().sum()
    whole = torch.zeros(NUM_USERS + NUM_ITEMS, NUM_USERS + NUM_ITEMS, dtype=torch.float64)
    for place, name in enumerate(graph.modalities):
        values, present = features[name]
        frozen = torch.from_numpy(dense_content(values.numpy(), present.numpy(), "similarity"))
        before = projected(at_start or graph, features, place).detach().numpy()
        found = {pair: cosine for pair, cosine in nearest(before, present.numpy()).items() if cosine > 0}
        degree = [sum(cosine for (item, _), cosine in found.items() if item == which) for which in range(NUM_ITEMS)]
        h = projected(graph, features, place)
        learned = torch.zeros_like(whole)
        for item, other in found:
            cosine = F.cosine_similarity(h[item], h[other], dim=0).clamp(min=0)
            learned[NUM_USERS + item, NUM_USERS + other] = cosine / (degree[item] * degree[other]) ** 0.5
        whole = whole + shares[place] * (graph.frozen_share * frozen + (1 - graph.frozen_share) * learned)
    return whole
