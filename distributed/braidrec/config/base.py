"""The strict, frozen base of every configuration type."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class ConfigError(ValueError):
    """A configuration that cannot be run. The message names the key, the value seen and what was wanted."""


class Strict(BaseModel):
    """A frozen type that accepts neither an unknown key nor a value of another type (no "3" for 3).

    NaN and infinity are refused everywhere: no setting means anything with them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    def to_plain(self) -> dict[str, Any]:
        """The configuration as plain dicts, lists and scalars, as it is printed, hashed and stored."""
        return self.model_dump(mode="json")
