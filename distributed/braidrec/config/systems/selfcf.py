"""Settings of SelfCF."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import Rate


class SelfCFConfig(Strict):
    """SelfCF (Zhou et al., ACM TORS 2023): bootstrapped views of IDs, without negatives and without modalities; wants
    `objective.loss.kind: none`."""

    kind: Literal["selfcf"] = "selfcf"
    layers: Annotated[int, Field(ge=1, le=8)] = Field(default=2, description="Hops on the user–item graph.")
    view: Literal["dropout", "edge_dropout"] = Field(
        default="dropout",
        description="How the targets differ from what predicts them. dropout: entries of their vectors are zeroed; "
        "edge_dropout: they come over an epoch's graph without some of the interactions.",
    )
    rate: Rate = Field(
        default=0.5, description="Share of the entries, or of the interactions, that the targets are without."
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ("interactions",)

    @property
    def looks_at_modalities(self) -> bool:
        """Whether it uses features."""
        return False
