"""Settings of SLMRec."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import NonNegative, PositiveFloat, Rate


class SLMRecConfig(Strict):
    """SLMRec (Tao et al., IEEE TMM 2022): each modality propagated on its own, with a self-supervised task on them."""

    kind: Literal["slmrec"] = "slmrec"
    layers: Annotated[int, Field(ge=1, le=8)] = Field(default=3, description="Hops on the user–item graph.")
    temperature: PositiveFloat = Field(
        default=0.2, description="τ of the softmax over the items of the batch, which is the supervised loss."
    )
    self_supervision: Literal["alignment", "dropout", "masking", "dropout_and_masking", "none"] = Field(
        default="alignment",
        description="alignment of the modalities in ever coarser spaces; or agreement of two views of the vectors "
        "with dropout after every hop, with another modality (or the ID) masked in each, or both.",
    )
    weight: NonNegative = Field(default=0.1, description="What the task counts in the loss.")
    task_temperature: PositiveFloat = Field(default=0.2, description="τ of the task's InfoNCE.")
    dropout: Rate = Field(
        default=0.3, description="Share of the numbers dropped out after a hop, in views with dropout."
    )
    alignment_order: tuple[str, ...] | None = Field(
        default=None,
        description="Modalities from the finest space of alignment to the coarsest; null: in alphabetical order.",
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ("interactions",)
