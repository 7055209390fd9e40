"""Settings of BM3."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import NonNegative, Rate


class BM3Config(Strict):
    """BM3 (Zhou et al., WWW 2023): bootstrapped latent views without negatives; wants `objective.loss.kind: none`."""

    kind: Literal["bm3"] = "bm3"
    layers: Annotated[int, Field(ge=1, le=8)] = Field(default=1, description="Hops on the user–item graph.")
    dropout: Rate = Field(default=0.3, description="Share of a target representation's entries that are zeroed.")
    alignment_weight: NonNegative = Field(
        default=2.0, description="λ of the alignment between modalities and ID, and within each modality."
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ("interactions",)
