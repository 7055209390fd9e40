"""Settings of VMCF."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from braidrec.config.base import Strict
from braidrec.config.scalars import FolderName, NonNegative, Positive


class VMCFConfig(Strict):
    """VMCF (Park et al., WWW 2017): factors of items that explain users' ratings, with their tastes in features, and
    which items belong together. Each half can be switched off."""

    kind: Literal["vmcf"] = "vmcf"
    visual: bool = Field(
        default=True, description="With users' tastes in the items' features; false: no modality is looked at."
    )
    content_dim: Positive = Field(
        default=10, description="Size of a user's taste in a modality (P_u), and of the space it is mapped to (E f_i)."
    )
    relation: FolderName | None = Field(
        default=None,
        description="Relation between items of the data set, such as also_viewed; null: items that share most users.",
    )
    neighbours: Positive = Field(
        default=10, description="How many partners an item has, where they are found by shared users."
    )
    relation_weight: NonNegative = Field(
        default=1.0, description="λ of the squared errors of the pairs of items; 0: there are none."
    )
    non_edges: Annotated[int, Field(ge=0)] = Field(
        default=1, description="Items drawn at random for each pair of an item, which do not belong to it."
    )
    relation_regulariser: NonNegative = Field(
        default=0.01, description="λ of the L2 regulariser of the factors Z, over the pairs."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "VMCFConfig":
        settings = type(self).model_fields
        of_pairs = ("relation", "neighbours", "non_edges", "relation_regulariser")
        changed = [key for key in of_pairs if getattr(self, key) != settings[key].default]
        if not self.relation_weight and changed:
            raise ValueError(f"{changed[0]} has no effect with relation_weight=0, which leaves pairs out")
        if self.relation is not None and self.neighbours != settings["neighbours"].default:
            raise ValueError(f"neighbours has no effect with relation={self.relation}, which says what the pairs are")
        if not self.visual and self.content_dim != settings["content_dim"].default:
            raise ValueError("content_dim has no effect with visual=false")
        return self

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it looks at."""
        return ("related",) if self.relation_weight else ()

    @property
    def looks_at_modalities(self) -> bool:
        """Whether it uses features."""
        return self.visual
