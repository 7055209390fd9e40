"""What the benchmark scripts share: prepared data sets, run configurations, JSON output."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "distributed"))

from braidrec.config.load import load_config  # noqa: E402
from braidrec.config.prepare import PrepareConfig  # noqa: E402
from braidrec.config.run import RunConfig  # noqa: E402
from braidrec.data.folder import DatasetFolder  # noqa: E402


def prepared(raw: str, work: Path, suffix: str = "", settings: Sequence[str] = ()) -> DatasetFolder:
    """The dataset folder of a raw data set that configs/datasets/ knows by its folder's name; prepared once.

    A folder that is a dataset folder already is opened as it is.

    Args:
        suffix: of the prepared folder's name, where it is prepared in another way than the configuration's.
        settings: what is other then, `key=value`.
    """
    if (Path(raw) / "dataset.json").is_file():
        return DatasetFolder.open(raw)
    name = Path(raw).resolve().name
    target = work / "datasets" / f"{name}{suffix}"
    if not (target / "dataset.json").is_file():
        from braidrec.data.prepare import prepare

        file = ROOT / "configs" / "datasets" / f"{name.replace('-', '_')}.yaml"
        prepare(load_config(PrepareConfig, [file], [f"source.path={raw}", f"output={target}", *settings]))
    return DatasetFolder.open(str(target))


def run_config(model: str, data: DatasetFolder, work: Path, overrides: Sequence[str]) -> RunConfig:
    """The run configuration of a preset in configs/models/ on a data set, untracked, in this process."""
    common = [f"data.path={data.path}", f"storage={work / 'runs'}", "tracking.enabled=false", "workers.num=0"]
    return load_config(RunConfig, [ROOT / "configs" / "models" / f"{model}.yaml"], [*common, *overrides])


def work_folder(given: str | None) -> Path:
    """Where prepared data and runs go: `--work`, or a new temporary folder."""
    folder = Path(given) if given else Path(tempfile.mkdtemp(prefix="braidrec-benchmark-"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def run_job(job: str, settings: Sequence[str], config: str | None = None) -> None:
    """A job of jobs/ as a user runs it, with a configuration of configs/; its failure ends this process."""
    command = [sys.executable, str(ROOT / "jobs" / job)]
    command += [] if config is None else ["--config", str(ROOT / "configs" / config)]
    command += [part for setting in settings for part in ("--set", setting)]
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(status)


def print_json(result: dict[str, Any]) -> None:
    """The result, with what it was measured on."""
    machine = {"cpus": len(os.sched_getaffinity(0)), "processor": platform.processor() or platform.machine()}
    print(json.dumps({**result, "machine": machine}, indent=1))
