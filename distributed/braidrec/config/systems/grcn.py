"""Settings of GRCN."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import Positive


class GRCNConfig(Strict):
    """GRCN (Wei et al., ACM Multimedia 2020): ID embeddings on an interaction graph that content refines."""

    kind: Literal["grcn"] = "grcn"
    layers: Annotated[int, Field(ge=1, le=7)] = Field(
        default=2, description="Hops of the ID embeddings. Routing adds one to what is sampled around a batch."
    )
    routing: Annotated[int, Field(ge=1)] = Field(
        default=3, description="Times that a user's prototype is drawn to the items that are like it."
    )
    content_dim: Positive = Field(
        default=64, description="Size of an item's and a user's representation in a modality."
    )
    weighting: Literal["confidence", "max", "mean"] = Field(
        default="confidence",
        description="An edge's weight from its shares in the modalities: the largest, each times a learned confidence "
        "in the node that it comes from; the largest; the mean.",
    )
    pruning: Literal["hard", "soft"] = Field(
        default="hard",
        description="hard: edges that confidences make negative are cut; soft: they stay. Without confidences none is.",
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ("interactions",)
