"""What the documents name exists: files of the repository, make targets, links, configuration keys."""

import re
from pathlib import Path

import pytest

from braidrec.config.reference import render

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md")])
FOLDERS = "distributed|jobs|configs|tests|docs|scripts|benchmarks"


def named(document: Path) -> str:
    return document.relative_to(REPOSITORY).as_posix()


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def test_there_are_documents() -> None:
    assert {"CONTRIBUTING.md", "docs/cluster.md", "docs/configuration.md"} <= {named(file) for file in DOCUMENTS}


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_files_that_are_named_exist(document: Path) -> None:
    paths = set(re.findall(rf"(?<![\w/<.-])((?:{FOLDERS})/[\w./-]*\w)", text_of(document)))
    assert sorted(path for path in paths if not (REPOSITORY / path).exists()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_relative_links_lead_somewhere(document: Path) -> None:
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text_of(document)) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_make_targets_that_are_named_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text_of(document))) <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_configuration_keys_that_are_set_exist(document: Path) -> None:
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]*)", render(), re.MULTILINE)
    keys = {key for key, _ in rows} | {f"{key}.kind" for key, kind in rows if kind.startswith("keys below")}
    mappings = {key for key, kind in rows if kind.startswith("mapping")}
    shown = {re.sub(r"\.\d+$", "", key) for key in re.findall(r"--set '?([\w.]+)=", text_of(document))}
    unknown = {key for key in shown - {"key"} - keys if not any(key.startswith(f"{mapping}.") for mapping in mappings)}
    assert unknown == set()
