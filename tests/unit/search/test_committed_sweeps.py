"""Every committed sweep can be begun: its keys exist, its values are accepted, its points can be built."""

import re
import shlex
from pathlib import Path

import pytest
from search_cases import planted_run

from braidrec.config.load import load_config, merged
from braidrec.config.sweep import SweepConfig
from braidrec.search.judges import make_judge
from braidrec.search.runs import Runs

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))


def test_the_promised_sweeps_are_there() -> None:
    assert {"fusion", "ssl", "losses", "everything", "quick"} <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_sweep_could_begin(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = "\n".join(re.findall(r"^#(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE))
    overrides = [shlex.split(shown)[0] for shown in re.findall(r"--set ('[^']*'|\S+)", text)]
    for override in [None, *overrides]:
        sweep = load_config(SweepConfig, [file], [override] if override else [])
        sweep = sweep.model_copy(update={"run": merged(dict(sweep.run), planted_run(tmp_path))})
        runs = Runs.of(sweep)
        runs.check(sweep)
        assert runs.metric == "recall@20"
        config = runs.config(next(point for _, point in runs.space.corners()))
        assert config.workers.num == 0, "trials train in their own processes"
        make_judge(sweep.scheduler, runs.sign, config.training.epochs)
