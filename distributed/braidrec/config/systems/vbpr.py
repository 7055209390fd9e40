"""Settings of VBPR."""

from typing import Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import Positive


class VBPRConfig(Strict):
    """VBPR (He & McAuley, AAAI 2016): matrix factorisation with a bias an item, and tastes in the items' features."""

    kind: Literal["vbpr"] = "vbpr"
    content_dim: Positive = Field(
        default=64, description="Size of a user's taste in a modality (θ_u), and of the space it is mapped to (E f_i)."
    )

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ()
