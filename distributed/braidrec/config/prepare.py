"""What a preparation is: raw logs → a dataset folder. Every key can be set in YAML and by `--set`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from braidrec.config.base import Strict
from braidrec.config.scalars import FolderName

Positive = Annotated[int, Field(gt=0)]
HeldOut = Annotated[float, Field(ge=0.0, lt=1.0)]


class ColumnsConfig(Strict):
    """Names of the log's columns. An optional one that is null is not read."""

    user: str = Field(default="user_id", description="Column with the user's id.")
    item: str = Field(default="item_id", description="Column with the item's id.")
    rating: str | None = Field(default=None, description="Column with the rating, a finite number.")
    weight: str | None = Field(default=None, description="Column with the weight, a finite number of at least 0.")
    timestamp: str | None = Field(default=None, description="Column with the time of the interaction.")
    split: str | None = Field(default=None, description="Column with the row's given split: 0/1/2 or train/valid/test.")
    timestamp_unit: Literal["auto", "s", "ms", "iso"] = Field(
        default="auto",
        description="Times are numbers since 1970 in seconds or milliseconds (auto: decided by their size, all rows "
        "alike) or text such as 2014-03-01T12:00:00 (iso, UTC).",
    )


LogFormat = Literal["auto", "csv", "tsv", "jsonl", "parquet"]


class TableSourceConfig(Strict):
    """Logs as CSV, TSV, JSON lines (each also .gz) or Parquet with named columns."""

    kind: Literal["table"] = "table"
    paths: tuple[str, ...] = Field(
        description="Files or folders, local or pyarrow URIs; each file is read by one task."
    )
    format: LogFormat = Field(default="auto", description="auto: by the file's suffix.")
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        default=None, description="Delimiter of a CSV; null: a comma, or a tab for TSV."
    )
    column_names: tuple[str, ...] | None = Field(
        default=None, description="Names of all columns of a CSV without a header line, from left to right."
    )
    columns: ColumnsConfig = ColumnsConfig()

    @model_validator(mode="after")
    def _something_to_read(self) -> "TableSourceConfig":
        if not self.paths:
            raise ValueError("paths is empty: name at least one file or folder")
        return self


class GivenFilesSourceConfig(Strict):
    """One log a split: the split is given by the file."""

    kind: Literal["given_files"] = "given_files"
    train: tuple[str, ...] = Field(description="Files or folders of the train split.")
    valid: tuple[str, ...] = Field(default=(), description="Files or folders of the validation split.")
    test: tuple[str, ...] = Field(description="Files or folders of the test split.")
    format: LogFormat = Field(default="auto", description="auto: by the file's suffix.")
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        default=None, description="Delimiter of a CSV; null: a comma, or a tab for TSV."
    )
    column_names: tuple[str, ...] | None = Field(
        default=None, description="Names of all columns of a CSV without a header line, from left to right."
    )
    columns: ColumnsConfig = ColumnsConfig()

    @model_validator(mode="after")
    def _split_is_given_once(self) -> "GivenFilesSourceConfig":
        if not self.train or not self.test:
            raise ValueError("train and test need at least one file each; only valid may be left out")
        if self.columns.split is not None:
            raise ValueError(
                f"columns.split={self.columns.split!r}: the files already say the split; use source.kind=table"
            )
        return self


class MMRecColumnsConfig(ColumnsConfig):
    """The usual names in `.inter` files."""

    user: str = Field(default="userID", description="Column with the user's number.")
    item: str = Field(default="itemID", description="Column with the item's number.")


class MMRecSourceConfig(Strict):
    """A folder as MMRec reads it: one `.inter` (tab-separated) and `<modality>_feat.npy`, row = item number."""

    kind: Literal["mmrec"] = "mmrec"
    path: str = Field(description="The folder.")
    interactions: str | None = Field(default=None, description="Name of the `.inter` file; null: the only one there.")
    columns: MMRecColumnsConfig = Field(
        default=MMRecColumnsConfig(),
        description="rating, timestamp and split are found by their usual names where they are null.",
    )
    modalities: dict[FolderName, str] | None = Field(
        default=None, description="File name of each modality; null: every `<modality>_feat.npy`; {}: none."
    )


class AmazonSourceConfig(Strict):
    """Amazon review dumps of 2014, 2018 or 2023, as JSON lines (.gz); their fields tell the edition."""

    kind: Literal["amazon"] = "amazon"
    reviews: tuple[str, ...] = Field(description="Review files.")
    metadata: tuple[str, ...] = Field(default=(), description="Metadata files; they give titles, texts and images.")


SourceConfig = Annotated[
    TableSourceConfig | GivenFilesSourceConfig | MMRecSourceConfig | AmazonSourceConfig, Field(discriminator="kind")
]


class FeaturesConfig(Strict):
    """Vectors that exist already, joined to the items by id, never by position."""

    vectors: str = Field(
        description="A `.npy` matrix [rows, …] (float16/32/64) or a Parquet file with ids and vectors."
    )
    ids: str | None = Field(
        default=None, description="For `.npy`: the item id of each row, as .txt (one a line), .csv, .tsv or .parquet."
    )
    id_column: str = Field(default="item_id", description="Column with the ids, in Parquet, CSV and TSV.")
    vector_column: str = Field(
        default="vector",
        description="Parquet: column with the vectors: lists of numbers, or, where a vector has components (regions, "
        "frames, tokens), lists of such lists, as many as each has.",
    )

    @model_validator(mode="after")
    def _ids_are_known(self) -> "FeaturesConfig":
        if self.vectors.endswith(".npy") and self.ids is None:
            raise ValueError(
                f"vectors={self.vectors!r}: a .npy has no ids; name a file with the id of each row in `ids`"
            )
        if self.vectors.endswith(".parquet") and self.ids is not None:
            raise ValueError(f"ids={self.ids!r}: a Parquet file brings its ids in `id_column`; leave `ids` out")
        if not self.vectors.endswith((".npy", ".parquet")):
            raise ValueError(f"vectors={self.vectors!r}: must end in .npy or .parquet")
        return self


class UserFeaturesConfig(FeaturesConfig):
    """Vectors of the users that exist already, joined to them by id."""

    ids: str | None = Field(
        default=None, description="For `.npy`: the user id of each row, as .txt (one a line), .csv, .tsv or .parquet."
    )
    id_column: str = Field(default="user_id", description="Column with the ids, in Parquet, CSV and TSV.")


class ItemsConfig(Strict):
    """A table about the items. What it says is kept in `items.parquet` and `media/`."""

    paths: tuple[str, ...] = Field(description="Files or folders.")
    format: LogFormat = Field(default="auto", description="auto: by the file's suffix.")
    id_column: str = Field(default="item_id", description="Column with the item's id.")
    keep: tuple[str, ...] = Field(default=(), description="Columns copied to `items.parquet`, as text.")
    text: tuple[str, ...] = Field(default=(), description="Columns joined to the item's text in `media/text.parquet`.")
    image: str | None = Field(
        default=None, description="Column with the image's path or URI, for `media/image.parquet`."
    )


class MediaFolderConfig(Strict):
    """A folder with one file an item, named by the item's id."""

    folder: str = Field(description="The folder, local or a pyarrow URI.")
    suffixes: tuple[str, ...] = Field(default=(".jpg", ".jpeg", ".png"), description="What follows the id in a name.")


class RelationConfig(Strict):
    """Edges between items (also viewed, bought together), or between users (friends), in their own ids."""

    paths: Annotated[tuple[str, ...], Field(min_length=1)] = Field(description="Files or folders.")
    format: LogFormat = Field(default="auto", description="auto: by the file's suffix.")
    source: str = Field(default="src", description="Column with the id that an edge leaves.")
    destination: str = Field(default="dst", description="Column with the id that it leads to.")
    weight: str | None = Field(default=None, description="Column with what it counts, at least 0; null: all alike.")
    between: Literal["items", "users"] = Field(default="items", description="Whose ids these are.")


class CoreConfig(Strict):
    """k-core: users and items with fewer interactions are removed until none is left to remove."""

    users: Positive = Field(default=1, description="Least interactions a user; 1 removes nobody.")
    items: Positive = Field(default=1, description="Least interactions an item; 1 removes nothing.")


class _Shares(Strict):
    valid: HeldOut = Field(default=0.1, description="Share that validates.")
    test: HeldOut = Field(default=0.1, description="Share that tests.")

    @model_validator(mode="after")
    def _something_is_left(self) -> "_Shares":
        if self.valid + self.test >= 1:
            raise ValueError(
                f"valid={self.valid} and test={self.test} leave nothing to train on; their sum must be < 1"
            )
        return self


class RandomSplitConfig(Strict):
    """Random per user, by MMRec's rule: below 10 interactions one tests and one validates, else 20 % are halved."""

    kind: Literal["random"] = "random"


class RandomRatioSplitConfig(_Shares):
    """Random per user, by shares of each user's interactions."""

    kind: Literal["random_ratio"] = "random_ratio"


class LeaveOneOutSplitConfig(Strict):
    """Each user's last interaction tests, the one before validates."""

    kind: Literal["leave_one_out"] = "leave_one_out"
    order: Literal["time", "random"] = Field(default="time", description="What `last` means.")


class UserTimeSplitConfig(_Shares):
    """Each user's last interactions are held out."""

    kind: Literal["user_time"] = "user_time"


class GlobalTimeSplitConfig(_Shares):
    """The last interactions of all are held out; what happened at one moment stays together."""

    kind: Literal["global_time"] = "global_time"


class GlobalMomentSplitConfig(Strict):
    """Everything from two given moments on is held out."""

    kind: Literal["global_moment"] = "global_moment"
    valid_from: int = Field(description="First second (since 1970) that validates.")
    test_from: int = Field(description="First second (since 1970) that tests.")

    @model_validator(mode="after")
    def _in_order(self) -> "GlobalMomentSplitConfig":
        if self.valid_from > self.test_from:
            raise ValueError(f"valid_from={self.valid_from} is after test_from={self.test_from}; exchange them")
        return self


class ColdItemsSplitConfig(_Shares):
    """A share of the items, with all their interactions, is held out of train altogether."""

    kind: Literal["cold_items"] = "cold_items"


class ColdUsersSplitConfig(_Shares):
    """A share of the users, with all their interactions, is held out of train altogether."""

    kind: Literal["cold_users"] = "cold_users"


class GivenSplitConfig(Strict):
    """The split that the source brings."""

    kind: Literal["given"] = "given"


SplitConfig = Annotated[
    RandomSplitConfig
    | RandomRatioSplitConfig
    | LeaveOneOutSplitConfig
    | UserTimeSplitConfig
    | GlobalTimeSplitConfig
    | GlobalMomentSplitConfig
    | ColdItemsSplitConfig
    | ColdUsersSplitConfig
    | GivenSplitConfig,
    Field(discriminator="kind"),
]


class PrepareConfig(Strict):
    """One preparation."""

    output: str = Field(description="Dataset folder to write: a local path or any pyarrow URI that all workers reach.")
    overwrite: bool = Field(default=False, description="Replace the data set that `output` holds.")
    name: str | None = Field(default=None, description="Name of the data set; null: the last part of `output`.")
    seed: Annotated[int, Field(ge=0)] = Field(default=42, description="Decides random splits and the stored order.")
    source: SourceConfig
    features: dict[FolderName, FeaturesConfig] = Field(default_factory=dict, description="Vectors of each modality.")
    user_features: dict[FolderName, UserFeaturesConfig] = Field(
        default_factory=dict, description="Vectors of each modality of the users, for `features/user/`."
    )
    items: ItemsConfig | None = Field(default=None, description="A table about the items.")
    media: dict[FolderName, MediaFolderConfig] = Field(default_factory=dict, description="Raw files of each modality.")
    relations: dict[FolderName, RelationConfig] = Field(
        default_factory=dict, description="Edges between items or between users, for `relations/`."
    )
    on_bad_row: Literal["refuse", "quarantine"] = Field(
        default="refuse",
        description="A row with a missing id, a rating that is no finite number and the like: stop, or set it aside in "
        "`quarantine/` and count it.",
    )
    deduplicate: Literal["first", "last", "none"] = Field(
        default="last", description="Which of several rows of one user and item stays: by time, else by their order."
    )
    min_rating: float | None = Field(default=None, description="Rows rated lower are left out, after de-duplication.")
    core: CoreConfig = CoreConfig()
    split: SplitConfig | None = Field(
        default=None, description="null: the split that the source brings; random where it brings none."
    )
    unknown_users: Literal["refuse", "drop", "keep"] = Field(
        default="refuse", description="What to do with users who are in valid or test but not in train."
    )
    allow_empty_splits: bool = Field(
        default=False, description="Accept a valid or test split without rows. A given split may always lack valid."
    )
    part_rows: Positive = Field(
        default=2_000_000, description="Interactions in one file of the data set, at most about."
    )
    partition_rows: Positive = Field(
        default=5_000_000,
        description="Interactions that one task holds in memory, about 200 bytes each; no effect on the result.",
    )

    @model_validator(mode="after")
    def _cold_users_are_kept(self) -> "PrepareConfig":
        if isinstance(self.split, ColdUsersSplitConfig) and self.unknown_users != "keep":
            raise ValueError(
                f"split.kind=cold_users holds users out of train, unknown_users={self.unknown_users} would forbid "
                "that: set unknown_users=keep"
            )
        return self
