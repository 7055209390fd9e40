"""What the tests let both ranks do; imported by the spawned processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from braidrec.models.contract import Batch
from braidrec.objectives.gather import Gather, RankGather
from braidrec.objectives.in_batch_softmax import InBatchSoftmax
from braidrec.objectives.self_supervised.info_nce import InfoNCE
from braidrec.objectives.self_supervised.jensen_shannon import JensenShannon
from braidrec.objectives.self_supervised.moment_alignment import MomentAlignment
from braidrec.training.context import Collectives

DIM, NUM_ITEMS = 4, 6


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A rank's rows. `users` and `items` are ids too where a loss has two views of one kind of node."""

    first: np.ndarray
    second: np.ndarray
    users: np.ndarray
    items: np.ndarray
    weight: np.ndarray


def on_views(loss: Any) -> Callable[[Tensor, Tensor, Slice], Tensor]:
    def rows(first: Tensor, second: Tensor, part: Slice) -> Tensor:
        return loss.rows(first, second, torch.from_numpy(part.weight), torch.from_numpy(part.items))

    return rows


def on_interactions(gather: Gather) -> Callable[[Tensor, Tensor, Slice], Tensor]:
    log_popularity = torch.arange(1.0, NUM_ITEMS + 1, dtype=torch.float64).log()
    loss = InBatchSoftmax(temperature=0.5, log_popularity=log_popularity, cosine=True, gather=gather)

    def rows(first: Tensor, second: Tensor, part: Slice) -> Tensor:
        weight = torch.from_numpy(part.weight)
        users, items = torch.from_numpy(part.users), torch.from_numpy(part.items)
        batch = Batch(users=users, items=items, negatives=None, real=(weight > 0).double(), weight=weight)
        return loss.rows(first, second, None, batch)

    return rows


def bilinear() -> nn.Module:
    torch.manual_seed(5)
    return nn.Linear(DIM, DIM, bias=False).double()


LOSSES: dict[str, Callable[[Gather], Callable[[Tensor, Tensor, Slice], Tensor]]] = {
    "in-batch softmax": on_interactions,
    "info nce": lambda gather: on_views(InfoNCE(temperature=0.2, gather=gather)),
    "info nce, both views": lambda gather: on_views(InfoNCE(temperature=0.2, negatives_from="both", gather=gather)),
    "jensen-shannon": lambda gather: on_views(JensenShannon(gather=gather)),
    "jensen-shannon, bilinear": lambda gather: on_views(JensenShannon(transform=bilinear(), gather=gather)),
    "moments": lambda gather: on_views(MomentAlignment(gather=gather)),
    "moments of all": lambda gather: on_views(MomentAlignment(per_dimension=False, gather=gather)),
}


def loss_and_gradients(context: Collectives, name: str, part: Slice) -> tuple[float, np.ndarray, np.ndarray]:
    """The rank's loss, and its rows' gradients of the sum of all ranks' losses."""
    return run_loss(LOSSES[name](RankGather(context)), part)


def run_loss(rows: Callable[[Tensor, Tensor, Slice], Tensor], part: Slice) -> tuple[float, np.ndarray, np.ndarray]:
    first, second = (torch.from_numpy(view).requires_grad_() for view in (part.first, part.second))
    loss = (rows(first, second, part) * torch.from_numpy(part.weight)).sum()
    loss.backward()
    assert first.grad is not None and second.grad is not None
    return loss.item(), first.grad.numpy(), second.grad.numpy()


def gather_and_weigh(context: Collectives, rows: np.ndarray, upstream: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The gathered rows, and the gradient of `⟨upstream, gathered⟩` summed over ranks, by this rank's rows."""
    own = torch.from_numpy(rows).requires_grad_()
    gathered = RankGather(context)(own)
    arriving = torch.from_numpy(upstream.copy())
    gathered.backward(arriving)
    assert own.grad is not None
    np.testing.assert_array_equal(arriving, upstream)  # which autograd may still need
    return gathered.detach().numpy(), own.grad.numpy()


def gather_integers(context: Collectives, rows: np.ndarray) -> np.ndarray:
    gathered = RankGather(context)(torch.from_numpy(rows))
    assert not gathered.requires_grad
    return gathered.numpy()
