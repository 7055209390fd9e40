"""What is sent to the tracking server, as plain validated records, so that it can wait in a file and be sent later."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Record(BaseModel):
    """Frozen and strict. NaN and ±∞ survive the way through JSON: a diverged loss is worth keeping."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, ser_json_inf_nan="constants")


class RunIdentity(Record):
    """Enough to find a run again, or to create it once the server is back. First line of an outbox file."""

    format: Literal["braidrec-outbox/1"] = "braidrec-outbox/1"
    uri: str
    experiment: str
    artifact_location: str | None
    run_name: str
    key: str
    """Kept as the tag `braidrec.key`: a creation whose answer was lost is found by it and not repeated."""
    run_id: str | None
    start_time: int
    """Milliseconds since 1970."""
    tags: dict[str, str]


class MetricPoint(Record):
    """One value. The time stamp is fixed when it is made, so that sending it twice stores it once."""

    key: str
    value: float
    timestamp: int
    """Milliseconds since 1970."""
    step: int | None
    """None: whole seconds since the start of the run (system metrics)."""


class Metrics(Record):
    """Points in order of their making."""

    kind: Literal["metrics"] = "metrics"
    points: tuple[MetricPoint, ...]


class EarlierMetrics(Record):
    """Points of the epochs before a resume. Those that got lost with the process that made them are sent again."""

    kind: Literal["earlier metrics"] = "earlier metrics"
    points: tuple[MetricPoint, ...]


class Parameters(Record):
    """Parameters. MLflow's are immutable: of a resumed run, changed ones become tags `braidrec.resumed.<key>`."""

    kind: Literal["parameters"] = "parameters"
    values: dict[str, str]


class Tags(Record):
    """Tags; a later value replaces an earlier one."""

    kind: Literal["tags"] = "tags"
    values: dict[str, str]


class Text(Record):
    """A small text artefact."""

    kind: Literal["text"] = "text"
    path: str
    content: str


class LocalFile(Record):
    """A file or folder of this machine, copied below `folder` of the run's artefacts."""

    kind: Literal["file"] = "file"
    path: str
    folder: str


class Dataset(Record):
    """The data set that was trained on, for MLflow's lineage."""

    kind: Literal["dataset"] = "dataset"
    name: str
    path: str
    digest: str
    features: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Where the vectors come from, by modality."""


class Model(Record):
    """A saved pyfunc model (a local folder) to log, and to register under a name if one is given."""

    kind: Literal["model"] = "model"
    folder: str
    name: str
    registered_name: str | None


class End(Record):
    """The run is over."""

    kind: Literal["end"] = "end"
    status: Status
    end_time: int


Message = Metrics | EarlierMetrics | Parameters | Tags | Text | LocalFile | Dataset | Model | End


class Unsent(Record):
    """A message that did not arrive, and why it was refused (None: its turn never came)."""

    message: Annotated[Message, Field(discriminator="kind")]
    reason: str | None


UNSENT: TypeAdapter[Unsent] = TypeAdapter(Unsent)
