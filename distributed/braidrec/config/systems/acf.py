"""Settings of ACF."""

from typing import Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import Positive


class ACFConfig(Strict):
    """ACF (Chen et al., SIGIR 2017): attention over the items of a user's history, and over the components of each."""

    kind: Literal["acf"] = "acf"
    attention_dim: Positive = Field(default=64, description="Size of the hidden layer of both attentions.")
    history: Positive = Field(
        default=50,
        description="Most items of a user's history that a step looks at; of a longer one they are drawn anew.",
    )
    evaluation_history: Positive = Field(
        default=500,
        description="The same when the model is evaluated or recommended from; of a longer one they are taken in even "
        "steps, always the same.",
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ()
