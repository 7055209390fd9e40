"""A plain LightGCN as research code has it, to measure against: nothing here is used by the library.

Per batch: the whole normalised adjacency as a torch sparse COO tensor times all embeddings, once a layer; default Adam;
negatives by a Python loop over the batch's users with a set of each user's items. Backward through torch.sparse.mm.
It is as fast as such code is: no logging, no evaluation, adjacency built once and coalesced.
"""

import random
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class ReferenceLightGCN(nn.Module):
    """LightGCN with mean readout over a COO adjacency."""

    wants_negatives = True

    def __init__(self, users: NDArray[np.int32], items: NDArray[np.int32], sizes: tuple[int, int], layers: int) -> None:
        super().__init__()
        self.num_users, self.num_items = sizes
        self.layers = layers
        self.user_embedding = nn.Embedding(self.num_users, 64)
        self.item_embedding = nn.Embedding(self.num_items, 64)
        nn.init.normal_(self.user_embedding.weight, std=0.1)
        nn.init.normal_(self.item_embedding.weight, std=0.1)
        self.adjacency = coo_adjacency(users, items, sizes)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Representations of all users and all items."""
        level = torch.cat([self.user_embedding.weight, self.item_embedding.weight])
        levels = [level]
        for _ in range(self.layers):
            level = torch.sparse.mm(self.adjacency, level)
            levels.append(level)
        both = torch.stack(levels, dim=1).mean(dim=1)
        users, items = torch.split(both, [self.num_users, self.num_items])
        return users, items

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """BPR and the published regulariser."""
        user_vectors, item_vectors = self.propagate()
        u, p, n = user_vectors[users], item_vectors[positives], item_vectors[negatives]
        ranking = torch.nn.functional.softplus((u * n).sum(1) - (u * p).sum(1)).mean()
        ego = (self.user_embedding(users), self.item_embedding(positives), self.item_embedding(negatives))
        norms = sum(rows.norm(2).pow(2) for rows in ego) / (2 * len(users))
        return ranking + 1e-4 * norms


def time_batches(
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    sizes: tuple[int, int],
    *,
    layers: int,
    batches: int,
    batch_size: int = 2048,
) -> list[float]:
    """Seconds of each of `batches` training batches, after two that warm up."""
    return time_steps(
        ReferenceLightGCN(users, items, sizes, layers), (users, items), sizes, batches=batches, batch_size=batch_size
    )


def time_steps(
    model: Any,
    edges: tuple[NDArray[np.int32], NDArray[np.int32]],
    sizes: tuple[int, int],
    *,
    batches: int,
    batch_size: int = 2048,
) -> list[float]:
    """Seconds of each of `batches` batches of any reference model, after two that warm up.

    Args:
        model: has `wants_negatives` and `loss(users, items, negatives)`.
    """
    users, items = edges
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    owned: list[set[int]] = [set() for _ in range(sizes[0])]
    for user, item in zip(users.tolist(), items.tolist(), strict=True):
        owned[user].add(item)
    order = np.random.default_rng(0).permutation(len(users))
    seconds = []
    for batch in range(batches + 2):
        start = time.perf_counter()
        rows = order[np.arange(batch * batch_size, (batch + 1) * batch_size) % len(order)]
        wanted = users[rows].tolist() if model.wants_negatives else []
        drawn = torch.tensor([draw_negative(owned[user], sizes[1]) for user in wanted], dtype=torch.int64)
        loss = model.loss(torch.from_numpy(users[rows]).long(), torch.from_numpy(items[rows]).long(), drawn)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def draw_negative(owned: set[int], num_items: int) -> int:
    item = random.randrange(num_items)
    while item in owned:
        item = random.randrange(num_items)
    return item


def coo_adjacency(users: NDArray[np.int32], items: NDArray[np.int32], sizes: tuple[int, int]) -> Tensor:
    row = np.concatenate([users, items + sizes[0]]).astype(np.int64)
    column = np.concatenate([items + sizes[0], users]).astype(np.int64)
    degree = np.bincount(row, minlength=sum(sizes)).astype(np.float64)
    values = 1.0 / np.sqrt(degree[row] * degree[column])
    indices = torch.from_numpy(np.stack([row, column]))
    return torch.sparse_coo_tensor(indices, torch.from_numpy(values).float(), (sum(sizes), sum(sizes))).coalesce()
