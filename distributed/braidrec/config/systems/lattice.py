"""Settings of LATTICE."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import Positive


class LatticeConfig(Strict):
    """LATTICE (Zhang et al., ACM Multimedia 2021): item–item graphs learned from projected features each epoch, mixed
    with the frozen ones of `model.item_graph`, which also says how many neighbours the learned ones have."""

    kind: Literal["lattice"] = "lattice"
    layers: Annotated[int, Field(ge=1, le=8)] = Field(default=2, description="Hops on the user–item graph.")
    frozen_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.9, description="λ, share of the frozen graph; the rest is that of the learned one."
    )
    feature_dim: Positive = Field(
        default=64, description="Size of the projected features whose similarities are the learned graph."
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over; `content/*` stands for one a modality."""
        return ("interactions", "content/*")
