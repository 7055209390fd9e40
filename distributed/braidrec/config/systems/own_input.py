"""What settings of systems have in common that look at something of their own, not at vectors."""

from braidrec.config.base import Strict


class OwnInputConfig(Strict):
    """Of a system that propagates over nothing, and whose media are not modalities: raw words, or raw images."""

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that it propagates over."""
        return ()

    @property
    def looks_at_modalities(self) -> bool:
        """Whether it reads vectors of modalities."""
        return False
