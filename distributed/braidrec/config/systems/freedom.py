"""Settings of FREEDOM."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import NonNegative, Rate


class FreedomConfig(Strict):
    """FREEDOM (Zhou & Shen, ACM Multimedia 2023): a frozen item–item graph (`model.item_graph`), and a user–item graph
    that is pruned anew each epoch."""

    kind: Literal["freedom"] = "freedom"
    layers: Annotated[int, Field(ge=1, le=8)] = Field(default=2, description="Hops on the user–item graph.")
    prune_rate: Rate = Field(
        default=0.8,
        description="Share of the interactions that an epoch's user–item graph is without, those between popular nodes "
        "first (degree-sensitive pruning). They stay among the pairs that are trained on.",
    )
    modality_weight: NonNegative = Field(
        default=1e-3, description="λ of the BPR between the user vector and the projected features, per modality."
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ("interactions", "content")
