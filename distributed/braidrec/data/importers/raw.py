"""What every importer gives: where the rows, the vectors and the item descriptions are, and what they mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from braidrec.data.catalogue import Catalogue
from braidrec.data.rows import LogFile
from braidrec.data.vectors import VectorSource


@dataclass(frozen=True, kw_only=True)
class RawData:
    """A source, inspected but not yet read."""

    logs: tuple[LogFile, ...]
    has_given_split: bool
    vectors: Mapping[str, VectorSource] = field(default_factory=dict)
    catalogue: Catalogue | None = None
