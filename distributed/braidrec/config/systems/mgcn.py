"""Settings of MGCN."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import NonNegative, PositiveFloat


class MGCNConfig(Strict):
    """MGCN (Yu et al., ACM Multimedia 2023): features purified by behaviour, spread on an item–item graph of each
    modality (`model.item_graph`), fused by attention and gates, and contrasted with behaviour."""

    kind: Literal["mgcn"] = "mgcn"
    layers: Annotated[int, Field(ge=1, le=8)] = Field(default=2, description="Hops on the user–item graph.")
    temperature: PositiveFloat = Field(default=0.2, description="τ of InfoNCE.")
    contrast_weight: NonNegative = Field(
        default=0.01, description="λ of InfoNCE between what the modalities give and behaviour."
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over; `content/*` stands for one a modality."""
        return ("interactions", "content/*")
