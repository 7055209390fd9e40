"""Every YAML file committed under configs/ loads as what its folder says it is, as do the overrides it names."""

import re
import shlex
from pathlib import Path

import pytest

from braidrec.config.extract import ExtractConfig
from braidrec.config.load import load_config
from braidrec.config.prepare import PrepareConfig
from braidrec.config.run import RunConfig

CONFIGS = Path(__file__).parents[3] / "configs"
FILES = sorted(CONFIGS.rglob("*.y*ml"))
DATASETS = [file for file in FILES if file.is_relative_to(CONFIGS / "datasets")]
SWEEPS = [file for file in FILES if file.is_relative_to(CONFIGS / "sweeps")]
EXTRACTIONS = [file for file in FILES if file.is_relative_to(CONFIGS / "extract")]
RUNS = [file for file in FILES if file not in DATASETS + SWEEPS + EXTRACTIONS]


def named(file: Path) -> str:
    return file.relative_to(CONFIGS).as_posix()


def overrides_in_comments(file: Path) -> list[str]:
    """Each `--set …` that the comments of `file` show, as a shell would pass it."""
    text = "\n".join(re.findall(r"^\s*#(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE))
    return [shlex.split(shown)[0] for shown in re.findall(r"--set ('[^']*'|\S+)", text)]


def test_the_configs_that_the_documentation_names_exist() -> None:
    names = {named(file) for file in FILES}
    assert {"quickstart.yaml", "models/bpr_mf.yaml", "models/lightgcn.yaml"} <= names
    assert {f"datasets/{name}.yaml" for name in ("tiktok", "lfm2k", "ml100k_posters", "gowalla")} <= names
    assert all(file.suffix == ".yaml" for file in FILES)


@pytest.mark.parametrize("file", RUNS, ids=named)
def test_runs_load(file: Path) -> None:
    config = load_config(RunConfig, [file], ["data.path=datasets/mine"])
    assert config.data.path == "datasets/mine"
    for override in overrides_in_comments(file):
        load_config(RunConfig, [file], ["data.path=datasets/mine", override])


@pytest.mark.parametrize("file", EXTRACTIONS, ids=named)
def test_extractions_load(file: Path) -> None:
    config = load_config(ExtractConfig, [file])
    assert file.stem.startswith(config.data.removeprefix("datasets/").partition("_")[0])
    for override in overrides_in_comments(file):
        load_config(ExtractConfig, [file], [override])


@pytest.mark.parametrize("file", DATASETS, ids=named)
def test_preparations_load(file: Path) -> None:
    assert load_config(PrepareConfig, [file]).output == f"datasets/{file.stem}"
    assert overrides_in_comments(file), "the comments show how the input is given"
    for override in overrides_in_comments(file):
        load_config(PrepareConfig, [file], [override])


def test_the_quickstart_needs_nothing_else() -> None:
    config = load_config(RunConfig, [CONFIGS / "quickstart.yaml"])
    assert config.data.planted is not None, "it makes its own data"
    assert config.workers.num == 2
