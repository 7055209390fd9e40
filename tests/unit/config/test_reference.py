"""docs/configuration.md says what the configuration types say."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from braidrec.config.prepare import PrepareConfig
from braidrec.config.reference import main, render
from braidrec.config.run import DataConfig, RunConfig

DOCUMENT = Path(__file__).parents[3] / "docs" / "configuration.md"


def rows_in(document: str) -> list[list[str]]:
    """The cells of each table row that describes a key; a "|" inside a cell is written "\\|"."""
    rows = [line for line in document.splitlines() if line.startswith("| `")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


RUN_ROWS, OTHER_ROWS = (rows_in(part) for part in render().split("\n## A sweep"))
ROWS = RUN_ROWS + OTHER_ROWS


def sections() -> dict[str, list[list[str]]]:
    """Rows of a run by the heading that they stand under; kinds of one union may share the names of keys."""
    parts = re.split(r"^(#+ .*)$", render().split("\n## A sweep")[0], flags=re.MULTILINE)
    return {heading: rows_in(body) for heading, body in zip(parts[1::2], parts[2::2], strict=True)}


def row_of(key: str) -> list[str]:
    """The only row of a key, or that of the default kind."""
    found = {heading: row for heading, rows in sections().items() for row in rows if row[0] == f"`{key}`"}
    if len(found) > 1:
        found = {heading: row for heading, row in found.items() if heading.endswith("(default)")}
    (row,) = found.values()
    return row


def flattened(plain: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, dict) and value:
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def test_the_committed_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render(), "run `make docs` and commit docs/configuration.md"


def test_it_is_written_to_the_file_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "reference.md"
    monkeypatch.setattr("sys.argv", ["reference", str(file)])
    main()
    assert file.read_text(encoding="utf-8") == render()
    assert capsys.readouterr().out == f"wrote {file}\n"


def test_every_key_of_a_run_is_there_with_its_default() -> None:
    resolved = flattened(RunConfig(data=DataConfig(path="x")).to_plain())
    del resolved["data.path"], resolved["model.encoder.kind"], resolved["objective.loss.kind"]
    assert len(resolved) > 40
    for key, default in resolved.items():
        assert json.loads(row_of(key)[2].strip("`")) == default, key
    assert row_of("data.path")[2] == "*required*"
    assert row_of("model.encoder")[2] == "kind `lightgcn`"


def test_top_level_keys_of_a_preparation_are_there() -> None:
    for key in PrepareConfig.model_fields:
        assert [row for row in OTHER_ROWS if row[0] == f"`{key}`"], key


def test_a_default_that_a_place_changes_is_shown_there() -> None:
    document = render()
    start = document.index("### `source.columns` — where `source.kind = mmrec`")
    assert '| `source.columns.user` | string | `"userID"` |' in document[start : start + 400]


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("seed", "integer ≥ 0 and < 2^63"),
        ("model.encoder.layers", "integer ≥ 1 and ≤ 8"),
        ("evaluation.at", "list of (integer > 0)"),
        ("evaluation.patience", "integer > 0 or null"),
        ("evaluation.mask", "`train` · `train+valid`"),
        ("tracking.tags", "mapping of names to string"),
        ("data.planted", "keys below or null"),
        ("training.optimizer.gradient_clip", "number > 0 or null"),
    ],
)
def test_types_are_shown_with_their_bounds(key: str, shown: str) -> None:
    assert row_of(key)[1] == shown


def test_every_kind_of_a_tagged_union_has_its_keys() -> None:
    for heading in ("### `model.encoder` — kind `mf`", "### `model.encoder` — kind `lightgcn` (default)"):
        assert f"\n{heading}\n" in render()
    keys = {heading: [row[0] for row in rows] for heading, rows in sections().items()}
    assert keys["### `model.encoder` — kind `mf`"] == ["`model.encoder.biases`"]
    assert keys["### `model.encoder` — kind `gat`"] == [
        f"`model.encoder.{name}`" for name in ("layers", "heads", "readout", "dropout")
    ]


def test_every_key_has_a_meaning() -> None:
    # A tagged union may leave it to its kinds, whose headings follow.
    assert [row[0] for row in ROWS if not row[3] and not row[1].startswith("keys below")] == []


def test_keys_of_a_run_are_listed_once() -> None:
    assert sum(len(rows) for rows in sections().values()) == len(RUN_ROWS) > 100
    for heading, rows in sections().items():
        keys = [row[0] for row in rows]
        assert len(keys) == len(set(keys)), heading
