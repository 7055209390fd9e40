"""What is asked of a finished run."""

from typing import Literal

from pydantic import Field, model_validator

from braidrec.config.base import Strict
from braidrec.config.scalars import Positive, PositiveFloat, Seed, Share


class RunReference(Strict):
    """Which run."""

    run: str = Field(description="Name of a finished run, or the path or URI of its folder.")
    storage: str = Field(default="runs", description="Folder or URI that holds the runs.")
    data_path: str | None = Field(
        default=None, description="Where the data set is now; null: where it was in training."
    )


class Search(Strict):
    """How the best items are found."""

    index: Literal["exact", "ann"] = Field(
        default="exact",
        description="exact: by the scores of all items; ann: of those in the cells near a user, by FAISS (the extra "
        "`ann`), for models whose score is an inner product. What share of the exact lists it finds is always said.",
    )
    n_list: Positive | None = Field(default=None, description="ann: cells of the items; null: 4 √items.")
    n_probe: Positive | None = Field(
        default=None, description="ann: cells searched for a user; null: a 32nd of them, at least 16."
    )
    recall_users: Positive | None = Field(
        default=None, description="ann: users whose lists are compared with exact ones; null: 500."
    )

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> "Search":
        for name in ("n_list", "n_probe", "recall_users"):
            if self.index == "exact" and getattr(self, name) is not None:
                raise ValueError(f"{name} has no effect with index=exact: set index=ann, or leave it out")
        return self


class EvaluateConfig(Search, RunReference):
    """Full ranking of one split by a finished run."""

    split: Literal["valid", "test"] = Field(default="test", description="Whose interactions are the right answers.")
    mask: Literal["train", "train+valid"] = Field(
        default="train", description="Items of which splits are taken out of the candidates."
    )
    at: tuple[Positive, ...] = Field(default=(10, 20), description="Cut-offs k.")
    auc: bool = Field(default=False, description="Also the exact AUC per user (slower).")
    slices: bool = Field(
        default=True,
        description="Also by user activity, item popularity, cold and warm items, and by the modalities an item has.",
    )
    drop_modality: dict[str, Share] = Field(
        default_factory=dict,
        description="By modality, the share of the items that have it which are treated as if they did not.",
    )
    drop_seed: Seed = Field(
        default=0, description="Decides which these are; those of a smaller share are among those of a larger one."
    )
    tile_mb: Positive = Field(default=256, description="Memory for one tile of scores, MiB.")
    output: str | None = Field(
        default=None, description="Folder for metrics.json and per_user.parquet; null: in the run's folder."
    )


class AttackConfig(RunReference):
    """A finished run under attack: every item's vector is moved by ε to where the BPR over the train interactions rises
    fastest, and once more by ε at random (AMR, Tang et al., IEEE TKDE 2020)."""

    epsilons: tuple[PositiveFloat, ...] = Field(
        default=(0.05, 0.1, 0.2, 0.5), description="Each ε, in the units of the vectors as the model reads them."
    )
    modalities: tuple[str, ...] | None = Field(
        default=None, description="Which ones are moved, each by ε; null: all that the run looks at."
    )
    split: Literal["valid", "test"] = Field(default="test", description="Whose interactions are the right answers.")
    mask: Literal["train", "train+valid"] = Field(
        default="train", description="Items of which splits are taken out of the candidates."
    )
    at: tuple[Positive, ...] = Field(default=(10, 20), description="Cut-offs k.")
    auc: bool = Field(default=False, description="Also the exact AUC per user (slower).")
    seed: Seed = Field(default=0, description="Decides the negatives of the BPR and the random directions.")
    tile_mb: Positive = Field(default=256, description="Memory for one tile of scores, MiB.")
    output: str | None = Field(default=None, description="Folder for the curve; null: in the run's folder.")


class RecommendConfig(Search, RunReference):
    """Top-k lists and vectors of a finished run, in the data set's own string ids."""

    k: Positive = Field(default=20, description="Items per user.")
    users: tuple[str, ...] | None = Field(default=None, description="User ids; null: all users.")
    users_file: str | None = Field(default=None, description="Text file with one user id a line, instead of `users`.")
    new_users: str | None = Field(
        default=None,
        description="CSV, TSV, JSON lines or Parquet with the columns user_id and item_id: recommend to these users, "
        "whom training did not see, by the mean of their items' vectors. What they have there is not shown again, "
        "unless exclude=none.",
    )
    exclude: Literal["none", "train", "train+valid", "all"] = Field(
        default="all", description="Interactions of which splits a user is not shown again."
    )
    candidates_file: str | None = Field(
        default=None, description="Text file with one item id a line: only these are recommended."
    )
    vectors: bool = Field(default=False, description="Also write user_vectors.parquet and item_vectors.parquet.")
    tile_mb: Positive = Field(default=256, description="Memory for one tile of scores, MiB.")
    output: str | None = Field(default=None, description="Folder for the files; null: in the run's folder.")


class PrototypesConfig(RunReference):
    """What the prototypes of a finished run of ADDVAE stand for."""

    top: Positive = Field(default=10, description="Items and words of each prototype.")
    label: str = Field(default="item_id", description="The column of items.parquet that items are called by.")
    output: str | None = Field(default=None, description="Folder for the files; null: the run's folder.")
