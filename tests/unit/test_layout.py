"""The layering that the library promises, read off its import statements, wherever in a file they stand."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
LIBRARY = REPOSITORY / "distributed" / "braidrec"
FILES = sorted(LIBRARY.rglob("*.py"))
JOBS = sorted((REPOSITORY / "jobs").glob("*.py"))

PLAIN_TORCH = ("models", "objectives", "graph", "evaluation")
"""They know neither the engine nor where a setting comes from: tensors and plain arguments only."""
MAY_IMPORT_RAY = ("data", "features", "training", "search", "tracking", "display")
LONGEST_JOB = 80
LONGEST_FILE = 450


def package_of(file: Path) -> str:
    """The first folder below the library; empty for the library's own files."""
    parts = file.relative_to(LIBRARY).parts
    return parts[0] if len(parts) > 1 else ""


def imported_by(source: str, module: str = "") -> set[str]:
    """Dotted names of all that `source` imports, the names taken from a module included; `module` resolves dots."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return found


def imports_of(file: Path) -> set[str]:
    module = ".".join(file.relative_to(LIBRARY.parent).with_suffix("").parts)
    return imported_by(file.read_text(encoding="utf-8"), module)


def is_within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offenders(files: list[Path], *forbidden: str) -> list[str]:
    return [
        f"{file.relative_to(LIBRARY)} imports {name}"
        for file in files
        for name in sorted(imports_of(file))
        if is_within(name, *forbidden)
    ]


def test_the_scan_sees_every_form_of_import() -> None:
    source = """
import ray.train as t
from mlflow import client
from . import other
from ..config.run import RunConfig
if TYPE_CHECKING:
    import torch
def late():
    from braidrec import data
"""
    assert imported_by(source, "braidrec.models.lightgcn") == {
        "ray.train",
        "mlflow",
        "mlflow.client",
        "braidrec.models",
        "braidrec.models.other",
        "braidrec.config.run",
        "braidrec.config.run.RunConfig",
        "torch",
        "braidrec",
        "braidrec.data",
    }
    assert is_within("ray.train", "ray")
    assert not is_within("raylib", "ray")


def test_models_objectives_graph_and_evaluation_are_plain_torch() -> None:
    files = [file for file in FILES if package_of(file) in PLAIN_TORCH]
    assert len(files) > len(PLAIN_TORCH)
    others = {package_of(file) for file in FILES} - {"", *PLAIN_TORCH}
    assert {"config", "data", "tracking", "training"} <= others
    assert offenders(files, "ray", "mlflow", *(f"braidrec.{package}" for package in sorted(others))) == []


def test_only_the_packages_that_know_the_engine_import_ray() -> None:
    assert offenders([file for file in FILES if package_of(file) not in MAY_IMPORT_RAY], "ray") == []


def test_only_tracking_imports_mlflow() -> None:
    assert offenders([file for file in FILES if package_of(file) != "tracking"], "mlflow") == []


def test_the_graph_is_below_everything_and_models_are_below_objectives() -> None:
    graph = [file for file in FILES if package_of(file) == "graph"]
    # Systems and tasks bring losses of their own; what models are put together from knows what a cosine is, no more.
    models = [file for file in FILES if package_of(file) == "models" and file.parent.name not in ("systems", "tasks")]
    found = [line for line in offenders(models, "braidrec.objectives") if "objectives.cosine" not in line]
    assert offenders(graph, "braidrec.models", "braidrec.objectives", "braidrec.evaluation") == []
    assert found == [] and offenders(models, "braidrec.evaluation") == []


def test_configuration_imports_nothing_else_of_the_library() -> None:
    files = [file for file in FILES if package_of(file) == "config"]
    names = {name for file in files for name in imports_of(file) if is_within(name, "braidrec")}
    assert {name for name in names if not is_within(name, "braidrec.config")} == set()


def test_reading_a_configuration_loads_no_heavy_library() -> None:
    code = """
import sys
import braidrec, braidrec.config.load, braidrec.config.run, braidrec.config.prepare
print(sorted({"torch", "dgl", "ray", "mlflow", "pandas", "pyarrow", "scipy"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_jobs_are_thin(job: Path) -> None:
    assert len(job.read_text(encoding="utf-8").splitlines()) <= LONGEST_JOB


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_jobs_explain_themselves(job: Path, tmp_path: Path) -> None:
    """From another folder and without PYTHONPATH, as `ray job submit` runs them."""
    result = subprocess.run(
        [sys.executable, str(job), "--help"], capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "python jobs/" in result.stdout
    assert "--config FILE" in result.stdout


def test_files_can_be_held_in_mind() -> None:
    lengths = {
        file.relative_to(LIBRARY).as_posix(): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES
    }
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_every_package_has_an_init_file() -> None:
    folders = {file.parent for file in FILES}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
