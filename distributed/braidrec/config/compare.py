"""What is compared, and by what."""

from typing import Annotated

from pydantic import Field, model_validator

from braidrec.config.base import Strict
from braidrec.config.scalars import Positive, Seed


class CompareConfig(Strict):
    """A comparison of tracked runs: which of them, by which metric, and where the report goes."""

    experiment: str | None = Field(default=None, description="MLflow experiment, all runs of which are compared.")
    runs: tuple[str, ...] = Field(
        default=(), description="MLflow ids of runs, instead of `experiment`; a sweep's id stands for all its runs."
    )
    sweep: str | None = Field(
        default=None,
        description="Of the experiment only this sweep, by its name; none: only the runs that belong to no sweep.",
    )
    dataset: str | None = Field(
        default=None,
        description="Only runs on this data set: the name of its folder, or the beginning of its digest.",
    )
    storage: str = Field(default="runs", description="Folder or URI that holds the runs.")
    tracking_uri: str | None = Field(default=None, description="Tracking URI; null: sqlite in the storage folder.")
    metric: str | None = Field(
        default=None, description="Test metric of single users, as in ndcg@10; null: what the runs monitored."
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(
        default=0.95, description="Of the intervals; a test's corrected p must be below 1 − confidence."
    )
    resamples: Annotated[int, Field(ge=100)] = Field(default=5_000, description="Bootstrap resamples of the users.")
    seed: Seed = Field(default=0, description="Decides the resamples.")
    pairs: Positive = Field(default=20, description="Most pairs that are printed; the report has all.")
    report: str | None = Field(
        default=None, description="HTML file to write; null: comparisons/NAME.html in the storage folder."
    )

    @model_validator(mode="after")
    def _says_which(self) -> "CompareConfig":
        if (self.experiment is None) == (not self.runs):
            given = "both are given" if self.runs else "neither is given"
            raise ValueError(f"name an experiment, or ids of runs: {given}")
        if self.runs and self.sweep is not None:
            raise ValueError("sweep chooses among the runs of an experiment; of a list of runs name the sweep's id")
        return self
