"""What a model is built for."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from braidrec.graph.histories import Histories
from braidrec.graph.relation import Relation
from braidrec.graph.user_words import UserWords
from braidrec.models.pictures import ItemPictures
from braidrec.objectives.gather import Gather, own_rows


@dataclass(frozen=True, kw_only=True)
class Surrounding:
    """What a model is built for.

    Attributes:
        dims: numbers per feature vector, by modality.
        user_dims: the same of the users' modalities.
        precision: number format inside the propagation while training.
        gather: brings the rows of all ranks.
        interactions: the train graph; None where a model is only looked at.
        shapes: by modality, `(components, numbers)` of the items' vectors; one that is not named is one vector.
        histories: the users' train items; None where a model is only looked at.
        words: the users' words, of a model that wants them.
        pictures: the items' pictures, of a model that wants them.
        pretrained: parameters start here, from given weights where some are configured; else a checkpoint has them.
        rank, world_size: this process among those that evaluate together.
    """

    dims: Mapping[str, int]
    user_dims: Mapping[str, int] = field(default_factory=dict)
    precision: str = "fp32"
    gather: Gather = own_rows
    interactions: Relation | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    histories: Histories | None = None
    words: UserWords | None = None
    pictures: ItemPictures | None = None
    pretrained: bool = False
    rank: int = 0
    world_size: int = 1

    @property
    def dtype(self) -> torch.dtype | None:
        """The format as torch has it; None: that of the embeddings."""
        return torch.bfloat16 if self.precision == "bf16" else None
