"""What could not be sent survives in a file, exactly, and a broken file is refused by name and line."""

import math
from pathlib import Path

import pytest

from braidrec.tracking.messages import (
    Dataset,
    End,
    LocalFile,
    MetricPoint,
    Metrics,
    Model,
    Parameters,
    RunIdentity,
    Tags,
    Text,
    Unsent,
)
from braidrec.tracking.outbox_file import free_path, read_outbox, write_outbox

IDENTITY = RunIdentity(
    uri="http://me:secret@host",
    experiment="e",
    artifact_location=None,
    run_name="r",
    key="k",
    run_id=None,
    start_time=5,
    tags={"a": "b"},
)
EVERY_KIND = [
    Metrics(points=(MetricPoint(key="loss", value=0.1, timestamp=1, step=2),)),
    Parameters(values={"seed": "42"}),
    Tags(values={"t": "ü\n"}),
    Text(path="notes.txt", content="line\nline"),
    LocalFile(path="/x", folder=""),
    Dataset(name="d", path="/d", digest="0"),
    Model(folder="/m", name="recommender", registered_name=None),
    End(status="KILLED", end_time=9),
]


def test_every_kind_survives(tmp_path: Path) -> None:
    entries = [
        Unsent(message=message, reason=None if number % 2 else "why") for number, message in enumerate(EVERY_KIND)
    ]
    write_outbox(tmp_path / "deep" / "o.jsonl", IDENTITY, entries)
    identity, read = read_outbox(tmp_path / "deep" / "o.jsonl")
    assert read == entries
    assert identity == IDENTITY.model_copy(update={"uri": "http://me:***@host"})
    assert "secret" not in (tmp_path / "deep" / "o.jsonl").read_text()
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["o.jsonl"]


def test_a_diverged_loss_survives(tmp_path: Path) -> None:
    values = (math.nan, math.inf, -math.inf)
    points = tuple(MetricPoint(key="loss", value=value, timestamp=1, step=None) for value in values)
    write_outbox(tmp_path / "o", IDENTITY, [Unsent(message=Metrics(points=points), reason=None)])
    _, (entry,) = read_outbox(tmp_path / "o")
    assert isinstance(entry.message, Metrics)
    read = [point.value for point in entry.message.points]
    assert math.isnan(read[0])
    assert read[1:] == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"message": {"kind": "shell", "command": "rm"}, "reason": null}', r"o:2: .*message.*'shell'"),
        ('{"message": {"kind": "tags", "values": {"a": 1}}, "reason": null}', r"o:2: .*tags.*valid string"),
        ("{", "o:2: .*Invalid JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "o").write_text(IDENTITY.model_dump_json() + "\n" + line + "\n")
    with pytest.raises(ValueError, match=message):
        read_outbox(tmp_path / "o")


def test_not_an_outbox(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "other").write_text('{"format": "something-else/1"}\n')
    with pytest.raises(ValueError, match="empty: empty"):
        read_outbox(tmp_path / "empty")
    with pytest.raises(ValueError, match="other:1: not an outbox"):
        read_outbox(tmp_path / "other")
    with pytest.raises(ValueError, match="missing: no such file"):
        read_outbox(tmp_path / "missing")


def test_an_earlier_outbox_is_kept(tmp_path: Path) -> None:
    wanted = tmp_path / "outbox.jsonl"
    assert free_path(wanted) == wanted
    wanted.touch()
    assert free_path(wanted) == tmp_path / "outbox-2.jsonl"
    (tmp_path / "outbox-2.jsonl").touch()
    assert free_path(wanted) == tmp_path / "outbox-3.jsonl"
