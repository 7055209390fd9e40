"""The loss curves of tiny runs are those that were committed; `golden_curves.py` says when to write them anew."""

import json

import pytest
from golden_curves import FILE, KEPT, RUNS, Curves, compute


@pytest.fixture(scope="module")
def curves() -> Curves:
    return compute()


@pytest.mark.parametrize("metric", KEPT)
@pytest.mark.parametrize("run", RUNS)
def test_curve(curves: Curves, run: str, metric: str) -> None:
    committed = json.loads(FILE.read_text(encoding="utf-8"))
    assert curves[run][metric] == pytest.approx(committed[run][metric], rel=1e-6)
    assert len(committed[run][metric]) == 5


def test_the_curves_are_worth_keeping() -> None:
    """There is one for every run, and its loss falls."""
    committed = json.loads(FILE.read_text(encoding="utf-8"))
    assert set(committed) == set(RUNS)
    for curve in committed.values():
        assert curve["train/loss_term"] == sorted(curve["train/loss_term"], reverse=True)
