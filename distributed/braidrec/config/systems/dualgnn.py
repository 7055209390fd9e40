"""Settings of DualGNN."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict


class DualGNNConfig(Strict):
    """DualGNN (Wang et al., IEEE TMM 2021): modalities added up by a user's own shares, and a user–user graph
    (`model.user_graph`)."""

    kind: Literal["dualgnn"] = "dualgnn"
    layers: Annotated[int, Field(ge=1, le=8)] = Field(
        default=2, description="Hops on the user–item graph, whose levels are added up."
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ("interactions", "co_interaction")
