"""Settings of MMGCN."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import Positive


class MMGCNConfig(Strict):
    """MMGCN (Wei et al., ACM Multimedia 2019): a graph convolution with weights in each modality, averaged."""

    kind: Literal["mmgcn"] = "mmgcn"
    layers: Annotated[int, Field(ge=1, le=8)] = Field(default=2, description="Hops on the user–item graph.")
    content_dim: Positive = Field(
        default=256,
        description="Wider features are mapped to so many numbers before the first layer; others go in as they are. "
        "A user's preference in a modality has as many numbers as what goes in.",
    )
    combination: Literal["elementwise", "concatenation"] = Field(
        default="elementwise",
        description="How a layer combines what a node received with what it is: their sum, or a map of both.",
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ("interactions",)
