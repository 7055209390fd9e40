"""Settings of ADDVAE."""

from typing import Annotated, Literal

from pydantic import Field

from braidrec.config.scalars import NonNegative, Positive, PositiveFloat, Rate
from braidrec.config.systems.own_input import OwnInputConfig


class ADDVAEConfig(OwnInputConfig):
    """ADDVAE (Tran & Lauw, KDD 2022): two aligned disentangled VAEs, of a user's items and of his items' words; wants
    `objective.loss.kind: none` and `training.order: users`."""

    kind: Literal["addvae"] = "addvae"
    text: str = Field(default="text", description="Name of the data set's texts: those of media/<name>.parquet.")
    max_words: Positive = Field(
        default=20_000, description="Most words that are told apart: those of most occurrences in train items' texts."
    )
    min_items: Positive = Field(default=2, description="A word counts if the texts of so many train items have it.")
    prototypes: Annotated[int, Field(gt=0, le=64)] = Field(default=4, description="K, what a user is divided among.")
    prototypes_of: Literal["both", "each"] = Field(
        default="both", description="both: items and words belong to the same prototypes; each: to their own."
    )
    hidden: Positive = Field(default=200, description="Width of the encoders' hidden layer.")
    dropout: Rate = Field(
        default=0.5, description="Share of a user's entries that an encoder does not see while training."
    )
    std: PositiveFloat = Field(default=0.075, description="σ₀, standard deviation of the prior.")
    temperature: PositiveFloat = Field(
        default=0.1, description="τ, of what belongs to which prototype, and of the decoders."
    )
    gumbel: bool = Field(
        default=True, description="While training, draw what belongs to which prototype (Gumbel-softmax)."
    )
    beta: NonNegative = Field(default=0.2, description="Largest weight β of the KL divergences.")
    anneal_steps: Annotated[int, Field(ge=0)] = Field(
        default=20_000, description="β is step/anneal_steps until it has its largest value; 0: from the beginning."
    )
    text_weight: NonNegative = Field(default=0.2, description="λ of the words' side.")
    alignment_weight: NonNegative = Field(
        default=0.2, description="λ of the distance between what each side makes of the other."
    )
