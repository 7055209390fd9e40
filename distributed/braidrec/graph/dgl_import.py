"""The one place that imports DGL: `from braidrec.graph.dgl_import import dgl`.

Why it exists. DGL's core (sampling, blocks, message passing) works with any recent torch, but `import dgl`
also loads GraphBolt, whose binary must match torch's version exactly. PyPI's wheel of DGL 2.1.0 carries it
for torch 2.0 to 2.2.1 only; beside any other torch the import fails with "Cannot find DGL C++ graphbolt
library". BraidRec does not use GraphBolt. Where that binary is absent, an empty module takes its name before
the import, in this process only; where it is present nothing is replaced.

When it can go. Once DGL's wheels either load GraphBolt lazily or carry a binary for every torch that
pyproject.toml allows: then `import dgl` in its place.

It must run in every process before anything else imports DGL, so no other module of the library imports
`dgl` itself.
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import torch

_LIBRARY_NAMES = {
    "linux": "libgraphbolt_pytorch_{}.so",
    "darwin": "libgraphbolt_pytorch_{}.dylib",
    "win32": "graphbolt_pytorch_{}.dll",
}


def graphbolt_binary(dgl_folder: Path, torch_version: str, platform: str = sys.platform) -> Path:
    """Where DGL looks for its GraphBolt binary: one file per torch version, without its "+cpu" part."""
    name = _LIBRARY_NAMES.get(platform, _LIBRARY_NAMES["linux"])
    return dgl_folder / "graphbolt" / name.format(torch_version.partition("+")[0])


def prepare_import(dgl_folder: Path, torch_version: str) -> bool:
    """Make `import dgl` possible and silent.

    Returns:
        Whether a placeholder stands in for `dgl.graphbolt`.
    """
    # Without it DGL writes ~/.dgl/config.json and prints two lines on first use.
    os.environ["DGLBACKEND"] = "pytorch"
    if graphbolt_binary(dgl_folder, torch_version).is_file():
        return False
    explanation = f"Placeholder: DGL has no GraphBolt binary for torch {torch_version} (see {__name__})."
    sys.modules["dgl.graphbolt"] = ModuleType("dgl.graphbolt", explanation)
    return True


def _installed_folder() -> Path:
    """Folder of the installed DGL, found without importing it."""
    specification = importlib.util.find_spec("dgl")
    if specification is None or specification.origin is None:
        raise ModuleNotFoundError(
            "DGL is not installed: pip install 'dgl>=2.1,<3' (wheels exist for CPython <= 3.12)", name="dgl"
        )
    return Path(specification.origin).parent


# A DGL that is already there was imported by the user's own code, and works.
if "dgl" not in sys.modules:
    prepare_import(_installed_folder(), torch.__version__)

import dgl  # noqa: E402

__all__ = ["dgl", "graphbolt_binary", "prepare_import"]
