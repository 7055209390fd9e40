"""The tables at the end, and numbers as text."""

import math
from pathlib import Path

import pytest
from rich.console import Console

from braidrec.display import print_recommendations, print_summary
from braidrec.display.summary import print_strands
from braidrec.display.text import duration, rate, tool, value


@pytest.fixture
def console() -> Console:
    return Console(record=True, width=100, quiet=False, force_terminal=False)


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]


def test_summary(console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.executable", str(tmp_path / ".venv" / "bin" / "python"))
    print_summary(
        run_name="my[run]",
        best_epoch=7,
        epochs_run=9,
        metrics={"valid/recall@20": 0.25, "valid/ndcg@20": 0.125, "test/recall@20": 0.1234567, "test/auc": 0.9},
        seconds={"sampling": 30.0, "forward_backward": 90.0},
        places={"run folder": "/runs/" + "x" * 120},
        tracking_uri="sqlite:////runs/with space/mlflow.db",
        console=console,
    )
    text = console.export_text()
    assert "my[run]: epoch 7 of 9" in text
    assert rows(text) == [
        ["recall@20", "0.2500", "0.1235"],
        ["ndcg@20", "0.1250", ""],
        ["auc", "", "0.9000"],
        ["forward_backward", "0:01:30", "75%"],
        ["sampling", "0:00:30", "25%"],
    ]
    assert text.splitlines()[-2] == "run folder: /runs/" + "x" * 120
    assert text.splitlines()[-1] == (
        "MLflow: .venv/bin/mlflow ui --backend-store-uri 'sqlite:////runs/with space/mlflow.db'"
    )


def test_a_program_is_named_as_it_can_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    program = here / "bin" / "mlflow"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)
    there.mkdir()
    monkeypatch.setattr("sys.executable", str(program.with_name("python")))
    monkeypatch.setenv("PATH", "/usr/bin")
    monkeypatch.chdir(here)
    assert tool("mlflow") == "bin/mlflow"
    monkeypatch.chdir(there)
    assert tool("mlflow") == str(program)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin")
    assert tool("mlflow") == "mlflow"


def test_what_the_strands_count(console: Console) -> None:
    of_image = {"attention/image/mean": 0.6, "attention/image/q10": 0.5, "attention/image/q90": 0.75}
    others = {"attention/image/present": 0.9, "test/recall@20": 0.1}
    print_strands({**of_image, **others, "attention/text/present": 0.0}, console=console)
    assert rows(console.export_text()) == [["image", "0.6000", "0.5000", "0.7500"]]
    print_strands(others, console=console)
    assert console.export_text() == ""


def test_a_server_is_named_and_no_tracking_says_nothing(console: Console) -> None:
    arguments = {"run_name": "r", "best_epoch": 1, "epochs_run": 1, "metrics": {}, "seconds": {}, "places": {}}
    print_summary(**arguments, tracking_uri="http://me:secret@host:5000", console=console)
    assert console.export_text().splitlines()[-1] == "MLflow: http://me:***@host:5000"
    print_summary(**arguments, console=console)
    assert "MLflow" not in console.export_text()


def test_recommendations(console: Console) -> None:
    print_recommendations("u[1]", [("item-b", 0.75), ("[red]item", -0.5)], console=console)
    text = console.export_text()
    assert "recommendations for user u[1]" in text
    assert rows(text) == [["1", "item-b", "0.7500"], ["2", "[red]item", "-0.5000"]]


DURATIONS = [(0, "0:00:00"), (59.6, "0:01:00"), (3723, "1:02:03"), (2 * 86_400 + 5, "2 d 0:00:05")]
UNKNOWN = [(-1, "?"), (math.inf, "?"), (math.nan, "?")]


@pytest.mark.parametrize(("seconds", "text"), DURATIONS + UNKNOWN)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_numbers() -> None:
    assert [value(number) for number in (0.0, 0.12345, -0.5)] == ["0.0000", "0.1235", "-0.5000"]
    assert [value(number) for number in (0.001234, 12345.678)] == ["0.001234", "1.235e+04"]
    assert [rate(number) for number in (1_234_567.8, 9.96, 0.0)] == ["1,234,568", "10.0", "0.0"]
