"""`dataset.json` as types: what a dataset folder says about itself (explained in docs/dataset-format.md)."""

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field

from braidrec.config.base import Strict
from braidrec.config.scalars import FolderName

SCHEMA_VERSION: Literal[1] = 1
DESCRIPTION_FILE = "dataset.json"

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
OPTIONAL_COLUMNS = ("timestamp", "rating", "weight")

Side = Literal["item", "user"]
"""Whose vectors; also the name of the column that holds their indices."""
USER_FEATURES = "user"
"""The folder of the users' modalities among those of the items', which therefore may not have this name."""

Count = Annotated[int, Field(ge=0)]


def features_folder(side: Side, modality: str) -> str:
    """Where the vectors of a modality lie."""
    return f"features/{modality}" if side == "item" else f"features/{USER_FEATURES}/{modality}"


class SplitDescription(Strict):
    """One folder of interactions."""

    rows: Count
    has_timestamp: bool = False
    has_rating: bool = False
    has_weight: bool = False


class ProtocolDescription(Strict):
    """How train, valid and test were told apart."""

    kind: str
    seed: Count
    options: dict[str, Any] = Field(default_factory=dict)


class ModalityDescription(Strict):
    """One folder of feature vectors, of items or of users."""

    dim: Annotated[int, Field(gt=0)] = Field(description="Numbers per vector: the product of `shape`.")
    shape: tuple[Annotated[int, Field(gt=0)], ...] = Field(description="(dim,), or (components, dim).")
    ragged: bool = Field(
        default=False,
        description="A vector's list is as long as its components need; `shape` is that of the longest.",
    )
    dtype: Literal["float16", "float32"]
    num_vectors: Count = Field(description="Items (users) that have a vector.")
    coverage: Annotated[float, Field(ge=0, le=1)] = Field(description="num_vectors / num_items (num_users).")
    provenance: dict[str, Any] = Field(default_factory=dict, description="Where the vectors came from.")


class RelationDescription(Strict):
    """One folder of edges between items or between users."""

    between: Literal["items", "users"]
    rows: Count
    has_weight: bool = False


class MediaDescription(Strict):
    """One file of raw media, as text or as addresses."""

    rows: Count
    column: Literal["uri", "bytes", "text"]


class FileEntry(Strict):
    """A file of the folder, so that damage is noticed and the data has an identity."""

    bytes: Count
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DroppedEntry(Strict):
    """Rows, users, items or vectors that were left out, and why."""

    what: str = Field(description='"rows", "users", "items", "vectors", …')
    reason: str
    count: Count


class DatasetDescription(Strict):
    """The whole of `dataset.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str
    num_users: Annotated[int, Field(gt=0, lt=2**31)]
    num_items: Annotated[int, Field(gt=0, lt=2**31)]
    splits: dict[Split, SplitDescription]
    protocol: ProtocolDescription
    options: dict[str, Any] = Field(default_factory=dict, description="What it was prepared from and how.")
    modalities: dict[FolderName, ModalityDescription] = Field(default_factory=dict, description="Of the items.")
    user_modalities: dict[FolderName, ModalityDescription] = Field(default_factory=dict, description="Of the users.")
    relations: dict[FolderName, RelationDescription] = Field(default_factory=dict)
    media: dict[FolderName, MediaDescription] = Field(default_factory=dict)
    dropped: tuple[DroppedEntry, ...] = ()
    notes: tuple[str, ...] = ()
    files: dict[str, FileEntry] = Field(description="Every other file of the folder, by relative path.")

    def to_json(self) -> str:
        """The file's exact content: keys in the order of the types, no time, no machine."""
        return json.dumps(self.to_plain(), indent=2, ensure_ascii=False) + "\n"

    def modalities_of(self, side: Side) -> dict[str, ModalityDescription]:
        return self.modalities if side == "item" else self.user_modalities

    def digest(self) -> str:
        """One SHA-256 over the paths and hashes of all files: the identity of the data."""
        lines = "".join(f"{path} {entry.sha256}\n" for path, entry in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()
