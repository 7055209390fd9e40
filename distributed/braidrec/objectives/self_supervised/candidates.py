"""Which rows can be whose negatives."""

import torch
from torch import Tensor

from braidrec.objectives.gather import Gather


def gather_candidates(weight: Tensor, ids: Tensor, gather: Gather) -> tuple[Tensor, Tensor]:
    """`[N]` nodes of all ranks' rows, and whether each takes part (has a weight above 0)."""
    both = gather(torch.stack([ids, (weight > 0).to(ids.dtype)], dim=-1))
    return both[:, 0], both[:, 1] > 0


def are_negatives(ids: Tensor, all_ids: Tensor, taking_part: Tensor) -> Tensor:
    """`[n, N]` whether a candidate is a negative of a row: it takes part, and is another node."""
    return taking_part & (ids.unsqueeze(1) != all_ids)


def draw_negatives(ids: Tensor, all_ids: Tensor, taking_part: Tensor) -> tuple[Tensor, Tensor]:
    """One candidate for every row, uniformly among those that are its negatives; `[n]` each.

    Returns:
        Its position among the candidates, and whether there is one.
    """
    last = torch.iinfo(all_ids.dtype).max
    # Those that take part come first, by node: the ones that a row must not draw are then one range.
    nodes, order = torch.where(taking_part, all_ids, last).sort()
    start = torch.searchsorted(nodes, ids)
    size = torch.searchsorted(nodes, ids, right=True) - start
    choices = taking_part.sum() - size
    # fp64, for the product must not be rounded up to the number of choices.
    drawn = (torch.rand(ids.shape, dtype=torch.float64, device=ids.device) * choices).long()
    drawn = torch.where(drawn < start, drawn, drawn + size)
    exists = choices > 0
    return order[torch.where(exists, drawn, 0)], exists
