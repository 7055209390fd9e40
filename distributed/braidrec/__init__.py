"""BraidRec: distributed training of multimodal recommenders."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from braidrec.data.prepare import prepare
    from braidrec.runs.attack import attack
    from braidrec.runs.evaluate import evaluate
    from braidrec.runs.prototypes import prototypes
    from braidrec.runs.recommend import recommend
    from braidrec.search.compare import compare
    from braidrec.training.driver import train

__all__ = ["attack", "compare", "evaluate", "prepare", "prototypes", "recommend", "train"]

_WHERE = {
    "attack": "braidrec.runs.attack",
    "compare": "braidrec.search.compare",
    "evaluate": "braidrec.runs.evaluate",
    "prepare": "braidrec.data.prepare",
    "prototypes": "braidrec.runs.prototypes",
    "recommend": "braidrec.runs.recommend",
    "train": "braidrec.training.driver",
}


def __getattr__(name: str) -> Any:
    """Import on first use: `import braidrec` costs nothing, not torch's seconds."""
    if name not in _WHERE:
        raise AttributeError(f"module 'braidrec' has no attribute {name!r}; it has {__all__}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
