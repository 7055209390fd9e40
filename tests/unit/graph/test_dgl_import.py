"""`braidrec.graph.dgl_import`. What imports DGL does so in a process of its own, since an import cannot be undone."""

import ast
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import braidrec
from braidrec.graph.dgl_import import prepare_import

LIBRARY = Path(braidrec.__file__).parent
BINARIES = importlib.metadata.files("dgl") or []
TORCH_VERSION = importlib.metadata.version("torch").partition("+")[0]
BINARY_INSTALLED = any(f"graphbolt_pytorch_{TORCH_VERSION}." in str(file) for file in BINARIES)


def run_fresh(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DGL")}
    return subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code],
        env={**environment, "HOME": str(home), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.skipif(BINARY_INSTALLED, reason=f"this DGL has a GraphBolt binary for torch {TORCH_VERSION}")
def test_plain_import_fails_here_so_the_module_is_still_needed(tmp_path: Path) -> None:
    result = run_fresh("import dgl", tmp_path)
    assert result.returncode != 0
    assert "graphbolt" in result.stderr


def test_it_works_says_nothing_and_leaves_the_home_folder_alone(tmp_path: Path) -> None:
    """Sampling, message passing and its gradient."""
    # Edges 0→2, 1→2, 2→0: copy_u_sum gives node 0 h_2 and node 2 h_0 + h_1.
    code = """
import json, torch
from braidrec.graph.dgl_import import dgl
assert dgl.backend.backend_name == "pytorch"
graph = dgl.graph((torch.tensor([0, 1, 2]), torch.tensor([2, 2, 0])))
hidden = torch.tensor([[1.0], [10.0], [100.0]], requires_grad=True)
summed = dgl.ops.copy_u_sum(graph, hidden)
(summed * torch.tensor([[1.0], [2.0], [3.0]])).sum().backward()
sources = []
for sampler in (dgl.dataloading.NeighborSampler([2]), dgl.dataloading.LaborSampler([2])):
    input_nodes, _, blocks = sampler.sample(graph, torch.tensor([2]))
    sources.append([sorted(input_nodes.tolist()), blocks[0].num_edges()])
print(json.dumps([summed.flatten().tolist(), hidden.grad.flatten().tolist(), sources]))
"""
    result = run_fresh(code, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    (printed,) = result.stdout.splitlines()
    assert list(tmp_path.iterdir()) == []
    summed, gradient, sources = json.loads(printed)
    assert summed == [100.0, 0.0, 11.0]
    assert gradient == [3.0, 3.0, 1.0]
    assert sources == [[[0, 1, 2], 2]] * 2


@pytest.mark.parametrize("torch_version", ["2.2.1", "2.2.1+cu121"])
@pytest.mark.parametrize(("present", "placeholder"), [("2.2.1", False), ("2.2.10", True)])
def test_placeholder_only_where_the_binary_is_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch_version: str, present: str, placeholder: bool
) -> None:
    (tmp_path / "graphbolt").mkdir()
    suffix = {"darwin": "dylib"}.get(sys.platform, "so")
    (tmp_path / "graphbolt" / f"libgraphbolt_pytorch_{present}.{suffix}").touch()
    monkeypatch.delitem(sys.modules, "dgl.graphbolt", raising=False)
    assert prepare_import(tmp_path, torch_version) == placeholder
    assert ("dgl.graphbolt" in sys.modules) == placeholder
    sys.modules.pop("dgl.graphbolt", None)


def test_a_dgl_that_is_already_imported_is_left_alone(tmp_path: Path) -> None:
    code = """
import sys, types
theirs = types.ModuleType("dgl")
sys.modules["dgl"] = theirs
from braidrec.graph.dgl_import import dgl
assert dgl is theirs
assert "dgl.graphbolt" not in sys.modules
"""
    result = run_fresh(code, tmp_path)
    assert result.returncode == 0, result.stderr


def test_missing_dgl_is_said_plainly(tmp_path: Path) -> None:
    code = """
import importlib.util
import torch
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "dgl" else real(name, package)
import braidrec.graph.dgl_import
"""
    result = run_fresh(code, tmp_path)
    assert result.returncode != 0
    assert "DGL is not installed: pip install 'dgl>=2.1,<3'" in result.stderr


def test_no_other_module_of_the_library_imports_dgl() -> None:
    offenders = []
    for file in sorted(LIBRARY.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            if any(name.partition(".")[0] == "dgl" for name in names):
                offenders.append(file.relative_to(LIBRARY).as_posix())
    assert offenders == ["graph/dgl_import.py"]
