"""Settings of DRAGON."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict


class DragonConfig(Strict):
    """DRAGON (Zhou et al., ECAI 2023): modalities side by side, a frozen item–item graph (`model.item_graph`) and a
    user–user graph (`model.user_graph`)."""

    kind: Literal["dragon"] = "dragon"
    layers: Annotated[int, Field(ge=1, le=8)] = Field(
        default=2, description="Hops on the user–item graph, whose levels are added up."
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ("interactions", "content", "co_interaction")
