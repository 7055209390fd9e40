"""Plain FREEDOM, BM3 and MGCN as research code has them, to measure against: nothing here is used by the library.

Per batch: the whole normalised adjacency as a torch sparse COO tensor times all embeddings, the features of all items
projected, all nodes fused; backward through torch.sparse.mm; default Adam over everything that is trained; negatives by
a Python loop over the batch's users with a set of each user's items (BM3 wants none, and draws none). They are as fast
as such code is: no logging, no evaluation, graphs built once and coalesced, FREEDOM's pruned graph too. Features are
frozen, as the papers have them, or trained, as the published programs do, which costs Adam their gradients and moments.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from reference_lightgcn import coo_adjacency, time_steps
from torch import Tensor, nn

Sizes = tuple[int, int]


class _Reference(nn.Module):
    """Embeddings, a COO adjacency and LightGCN's propagation over it."""

    wants_negatives = True

    def __init__(self, adjacency: Tensor, sizes: Sizes, features: Sequence[Tensor], layers: int) -> None:
        super().__init__()
        self.sizes, self.layers, self.adjacency = sizes, layers, adjacency
        self.features: Sequence[Tensor] = list(features)
        self.user_embedding = nn.Embedding(sizes[0], 64)
        self.item_embedding = nn.Embedding(sizes[1], 64)
        nn.init.xavier_uniform_(self.user_embedding.weight)
        nn.init.xavier_uniform_(self.item_embedding.weight)
        self.projectors = nn.ModuleList(nn.Linear(table.shape[1], 64) for table in features)

    def train_features(self) -> None:
        """From now on features are parameters."""
        self.features = nn.ParameterList(nn.Parameter(table) for table in self.features)

    def propagate(self) -> Tensor:
        """Mean of all levels, `[users + items, 64]`."""
        level = torch.cat([self.user_embedding.weight, self.item_embedding.weight])
        levels = [level]
        for _ in range(self.layers):
            level = torch.sparse.mm(self.adjacency, level)
            levels.append(level)
        return torch.stack(levels, dim=1).mean(dim=1)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        users, items = torch.split(rows, list(self.sizes))
        return users, items


class ReferenceFreedom(_Reference):
    """FREEDOM: pruned interactions, a frozen item graph, BPR on vectors and on projected features."""

    def __init__(self, adjacency: Tensor, sizes: Sizes, features: Sequence[Tensor], graphs: Sequence[Tensor]) -> None:
        super().__init__(adjacency, sizes, features, layers=2)
        self.item_graph = (sum(graphs[1:], graphs[0]) / len(graphs)).coalesce()

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        user_vectors, item_vectors = self.split(self.propagate())
        item_vectors = item_vectors + torch.sparse.mm(self.item_graph, self.item_embedding.weight)
        total = _bpr(user_vectors[users], item_vectors[positives], item_vectors[negatives])
        for table, projector in zip(self.features, self.projectors, strict=True):
            rows = projector(table)
            total = total + 1e-3 * _bpr(user_vectors[users], rows[positives], rows[negatives])
        return total


class ReferenceBM3(_Reference):
    """BM3: bootstrapped views of vectors and of projected features, without negatives."""

    wants_negatives = False

    def __init__(self, adjacency: Tensor, sizes: Sizes, features: Sequence[Tensor], graphs: Sequence[Tensor]) -> None:
        super().__init__(adjacency, sizes, features, layers=1)
        self.predictor = nn.Linear(64, 64)

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        user_vectors, item_vectors = self.split(self.propagate())
        item_vectors = item_vectors + self.item_embedding.weight
        projected = [projector(table) for table, projector in zip(self.features, self.projectors, strict=True)]
        with torch.no_grad():
            user_target, item_target = F.dropout(user_vectors, 0.3), F.dropout(item_vectors, 0.3)
            feature_targets = [F.dropout(rows, 0.3) for rows in projected]
        online_users, online_items = self.predictor(user_vectors)[users], self.predictor(item_vectors)[positives]
        total = _distance(online_users, item_target[positives]) + _distance(online_items, user_target[users])
        for rows, target in zip(projected, feature_targets, strict=True):
            online = self.predictor(rows)[positives]
            total = total + 2.0 * (_distance(online, item_target[positives]) + _distance(online, target[positives]))
        norms = user_vectors[users].pow(2).sum() + item_vectors[positives].pow(2).sum()
        return total + 1e-3 * norms / (2 * len(users))


class ReferenceMGCN(_Reference):
    """MGCN: gated features spread on graphs of their own, shared and specific parts, and a contrast with behaviour."""

    def __init__(self, adjacency: Tensor, sizes: Sizes, features: Sequence[Tensor], graphs: Sequence[Tensor]) -> None:
        super().__init__(adjacency, sizes, features, layers=2)
        self.graphs = list(graphs)
        self.user_item = _upper_right(adjacency, sizes)
        self.purifiers = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in features)
        self.preferences = nn.ModuleList(nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in features)
        self.attention = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1, bias=False))

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        behaviour = self.propagate()
        spread = []
        for table, projector, purifier, graph in zip(
            self.features, self.projectors, self.purifiers, self.graphs, strict=True
        ):
            items = torch.sparse.mm(graph, self.item_embedding.weight * purifier(projector(table)))
            spread.append(torch.cat([torch.sparse.mm(self.user_item, items), items]))
        weights = torch.softmax(torch.cat([self.attention(rows) for rows in spread], dim=-1), dim=-1)
        shared = sum(weights[:, place : place + 1] * rows for place, rows in enumerate(spread))
        specific = [gate(behaviour) * (rows - shared) for gate, rows in zip(self.preferences, spread, strict=True)]
        side = (shared + sum(specific)) / (len(spread) + 1)
        user_vectors, item_vectors = self.split(behaviour + side)
        (side_users, side_items), (own_users, own_items) = self.split(side), self.split(behaviour)
        total = _bpr(user_vectors[users], item_vectors[positives], item_vectors[negatives])
        contrast = _info_nce(side_users[users], own_users[users]) + _info_nce(
            side_items[positives], own_items[positives]
        )
        return total + 0.01 * contrast


REFERENCES = {"freedom": ReferenceFreedom, "bm3": ReferenceBM3, "mgcn": ReferenceMGCN}


def time_batches(
    name: str,
    edges: tuple[NDArray[np.int32], NDArray[np.int32]],
    sizes: Sizes,
    features: Sequence[NDArray[np.float32]],
    *,
    batches: int,
    batch_size: int = 2048,
    trained_features: bool = False,
) -> list[float]:
    """Seconds of each of `batches` training batches, after two that warm up."""
    users, items = edges
    tables = [torch.from_numpy(table) for table in features]
    kept = np.random.default_rng(0).random(len(users)) >= (0.8 if name == "freedom" else 0.0)
    adjacency = coo_adjacency(users[kept], items[kept], sizes)
    model = REFERENCES[name](adjacency, sizes, tables, [_neighbour_graph(table) for table in tables])
    if trained_features:
        model.train_features()
    return time_steps(model, edges, sizes, batches=batches, batch_size=batch_size)


def _bpr(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    return -F.logsigmoid((users * positives).sum(1) - (users * negatives).sum(1)).mean()


def _distance(online: Tensor, target: Tensor) -> Tensor:
    return 1 - F.cosine_similarity(online, target.detach(), dim=-1).mean()


def _info_nce(first: Tensor, second: Tensor) -> Tensor:
    first, second = F.normalize(first, dim=1), F.normalize(second, dim=1)
    positive = torch.exp((first * second).sum(-1) / 0.2)
    every = torch.exp(torch.matmul(first, second.transpose(0, 1)) / 0.2).sum(dim=1)
    return -torch.log(positive / every).mean()


def _neighbour_graph(table: Tensor, k: int = 10) -> Tensor:
    """Symmetric normalised k-nearest-neighbour graph by cosine, as COO."""
    rows = F.normalize(table, dim=1)
    neighbours = (rows @ rows.T).topk(k, dim=1).indices.reshape(-1)
    own = torch.arange(len(table)).repeat_interleave(k)
    scale = torch.full((len(own),), 1.0 / k)
    return torch.sparse_coo_tensor(torch.stack([own, neighbours]), scale, (len(table), len(table))).coalesce()


def _upper_right(adjacency: Tensor, sizes: Sizes) -> Tensor:
    """The users' rows and items' columns."""
    row, column = adjacency.indices()
    kept = row < sizes[0]
    indices = torch.stack([row[kept], column[kept] - sizes[0]])
    return torch.sparse_coo_tensor(indices, adjacency.values()[kept], sizes).coalesce()
