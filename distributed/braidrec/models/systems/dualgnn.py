"""DualGNN."""

from typing import Any

from braidrec.models.systems.dual_graph import DualGraph


class DualGNN(DualGraph):
    """Modalities added up by every user's shares, and a graph among users (Wang et al., DualGNN, IEEE TMM 2021).

    `DualGraph` with the sum of the modalities and without a graph among items. There are no ID embeddings. Deviations
    from the published program: shares are a softmax throughout, where there they start as one and are then free, and a
    user with fewer neighbours than wanted has those, instead of some of them several times.

    Args: as of `DualGraph`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(item_layers=0, combination="sum", **options)
