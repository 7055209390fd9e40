"""Settings of MMRec's VBPR."""

from typing import Literal

from braidrec.config.base import Strict


class VBPRMMConfig(Strict):
    """What MMRec calls VBPR: items are their ID embedding beside a linear map of all features; there are no biases."""

    kind: Literal["vbpr_mm"] = "vbpr_mm"

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ()
