"""The loop over hops that encoders with steps of their own have in common."""

from collections.abc import Callable

from torch import Tensor

from braidrec.graph.hop import Hop, Neighbourhood

Step = Callable[[int, Hop, Tensor], Tensor]
"""`(layer from 0, hop, source rows) → destination rows`."""


def levels_at_seeds(neighbourhood: Neighbourhood, h: Tensor, step: Step) -> list[Tensor]:
    """The seeds' rows after every hop; level 0 is not among them.

    Args:
        h: `[num_input_nodes, d]`.
    Returns:
        as many tensors `[num_seeds, …]` as there are hops.
    """
    levels, z = [], h
    for layer, hop in enumerate(neighbourhood.hops):
        z = step(layer, hop, z)
        levels.append(neighbourhood.at_seeds(z, layer + 1))
    return levels
