"""What an extraction is: raw media of items → `features/<modality>/` of a dataset folder."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from braidrec.config.base import Strict
from braidrec.config.encoders import EncoderConfig
from braidrec.config.scalars import FolderName, Positive, PositiveFloat, Share

ManifestFormat = Literal["auto", "csv", "tsv", "jsonl", "parquet"]


class DatasetSourceConfig(Strict):
    """Media that the data set carries already: `media/<name>.parquet`, or columns of its `items.parquet`."""

    kind: Literal["dataset"] = "dataset"
    media: str | None = Field(default=None, description="Name of the media file; null: that of the modality.")
    text: tuple[str, ...] = Field(default=(), description="Instead: columns of `items.parquet`, joined to one text.")

    @model_validator(mode="after")
    def _one_medium(self) -> "DatasetSourceConfig":
        if self.media is not None and self.text:
            raise ValueError(f"media={self.media} and text={list(self.text)} given; name one of them")
        return self


class ManifestSourceConfig(Strict):
    """A table with an item's id and its medium: an address, bytes, or columns of text."""

    kind: Literal["manifest"] = "manifest"
    paths: tuple[str, ...] = Field(description="CSV, TSV, JSON lines (each also .gz) or Parquet; files or folders.")
    format: ManifestFormat = Field(default="auto", description="auto: by the file's suffix.")
    id_column: str = Field(default="item_id", description="Column with the item's id, as in the logs.")
    uri: str | None = Field(default=None, description="Column with the path or URI of the item's file.")
    folder: str | None = Field(default=None, description="Where relative paths start; null: beside the manifest.")
    bytes: str | None = Field(default=None, description="Column with the file's content (Parquet).")
    text: tuple[str, ...] = Field(default=(), description="Columns joined to one text.")

    @model_validator(mode="after")
    def _one_medium(self) -> "ManifestSourceConfig":
        given = [name for name in ("uri", "bytes", "text") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"{given or 'nothing'} given; name exactly one of uri, bytes and text")
        if not self.paths:
            raise ValueError("paths is empty: name at least one file or folder")
        if self.folder is not None and self.uri is None:
            raise ValueError(f"folder={self.folder} is where the addresses in uri start, and none is given; remove it")
        return self


ExtractSourceConfig = Annotated[DatasetSourceConfig | ManifestSourceConfig, Field(discriminator="kind")]


class TextFieldsConfig(Strict):
    """How several columns become one text."""

    separator: str = Field(default="\n", description="Between two fields.")
    prefixes: dict[str, str] = Field(default_factory=dict, description='Before a field, such as {brand: "Brand: "}.')
    fill: str | None = Field(
        default=None, description="Stands for an empty field; null: the field is left out with prefix and separator."
    )
    required: tuple[str, ...] = Field(
        default=(), description="Fields without which an item counts as having no text, whatever the others say."
    )


class ImageLimitsConfig(Strict):
    """Which images count as broken."""

    max_bytes: Positive = Field(default=1 << 30, description="Bytes of a file.")
    max_pixels: Positive = Field(default=100_000_000, description="Pixels of an image, judged by its header.")
    max_aspect: Annotated[float, Field(ge=1)] = Field(
        default=100.0, description="Longer side of an image or video by its shorter one."
    )
    min_side: Positive = Field(default=2, description="Pixels of an image's shorter side.")


class LimitsConfig(ImageLimitsConfig):
    """What counts as broken. The item is then left out and stands in the rejects table, with the reason."""

    max_characters: Positive = Field(default=200_000, description="Characters of a text.")
    min_seconds: PositiveFloat = Field(default=0.05, description="Length of a sound or video.")
    max_seconds: PositiveFloat = Field(default=600.0, description="Seconds of a sound or video that are read.")
    silence_dbfs: float = Field(default=-80.0, description="A sound whose loudest sample is below this is silent.")


class ExtractWorkersConfig(Strict):
    """The processes that hold the encoder."""

    num: Positive = Field(default=1, description="Actors, each with an encoder of its own.")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU each, where there are any.")
    threads: Positive | None = Field(default=None, description="Threads of one; null: the node's CPUs / num.")


class QualityConfig(Strict):
    """The sheet that shows whether the features mean anything, `extracted/<modality>/sheet.html`."""

    enabled: bool = Field(default=True, description="Write the sheet, and compare neighbours by content with chance.")
    examples: Positive = Field(default=8, description="Items shown with their nearest neighbours.")
    neighbours: Positive = Field(default=5, description="Neighbours shown of each.")
    max_items: Positive = Field(default=50_000, description="Items that are compared; a random sample beyond.")


class ExtractConfig(Strict):
    """One extraction: one modality of one data set."""

    data: str = Field(description="Dataset folder that gets the features (docs/dataset-format.md).")
    modality: FolderName = Field(description="Name of the modality, the folder in `features/`.")
    source: ExtractSourceConfig = DatasetSourceConfig()
    text: TextFieldsConfig = TextFieldsConfig()
    encoder: EncoderConfig
    dtype: Literal["float32", "float16"] = Field(default="float32", description="How the vectors are stored.")
    max_failed: Share = Field(
        default=0.05, description="Share of the media that may be broken; beyond it the job stops with the table."
    )
    limits: LimitsConfig = LimitsConfig()
    workers: ExtractWorkersConfig = ExtractWorkersConfig()
    quality: QualityConfig = QualityConfig()
    rows_per_part: Positive = Field(
        default=512, description="Items written down together; what a killed job loses at most, a few times over."
    )
    memory_mb: Annotated[int, Field(ge=64)] = Field(
        default=1024, description="Decoded media waiting for the encoder, MiB, about; no effect on the vectors."
    )

    @model_validator(mode="after")
    def _not_the_users_folder(self) -> "ExtractConfig":
        if self.modality == "user":
            raise ValueError("modality=user: this is the folder of the users' features; choose another name")
        unknown = sorted({*self.text.required, *self.text.prefixes} - set(self.source.text))
        if unknown:
            raise ValueError(f"text: {unknown[0]!r} is none of the columns in source.text ({list(self.source.text)})")
        if not self.source.text and self.text != TextFieldsConfig():
            raise ValueError("text says how columns are joined, and source.text names none; remove text")
        return self
