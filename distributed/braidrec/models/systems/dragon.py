"""DRAGON."""

from typing import Any

from braidrec.models.systems.dual_graph import DualGraph


class Dragon(DualGraph):
    """Modalities side by side, over graphs among users and among items (Zhou et al., DRAGON, ECAI 2023).

    `DualGraph` with the modalities put side by side (the paper's attentive concatenation: a user's shares weigh them)
    and with the frozen item–item graph of FREEDOM. There are no ID embeddings. Deviations from the published program:
    shares are a softmax throughout, where there they start as one and are then free; features are not trained; an item
    is not its own neighbour.

    Args: as of `DualGraph`.
    """

    def __init__(self, *, item_layers: int = 1, **options: Any) -> None:
        if item_layers < 1:
            raise ValueError(f"item_layers={item_layers} must be at least 1")
        super().__init__(item_layers=item_layers, combination="concat", **options)
